"""`pytest checks/test_database.py checks/test_filestore.py`, and checks of one's own, with a real application."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.lab.action_run import REPOSITORY, ActionRun, Project
from tests.lab.application import Application
from tests.lab.backup_runs import describe
from tests.lab.supervisord import control, running_supervisord
from tests.lab.waiting import await_true

CHECK = "checks/test_database.py"
FILES = str(REPOSITORY / "checks/test_filestore.py")
HOW_TO = REPOSITORY / "docs/how-to/write-your-own-checks.md"
BLOCK = re.compile(r"^```python\n# (?P<path>\S+)\n(?P<text>.*?)^```", re.M | re.S)
SERVICE = """
def test_it_is_well(service, store):
    assert (service.name, service.is_running, service.is_enabled) == ("steady", True, True)
    assert list(store.list()) == []


def test_nothing_can_be_written(db):
    import psycopg, pytest
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        db.execute("DELETE FROM res_partner")
"""


def check(project: Project, *arguments: str) -> ActionRun:
    before = project.stored()
    run = project.run(FILES, *arguments, action=CHECK)
    assert project.stored() == before
    return run


def test_a_healthy_application_passes_and_what_was_not_looked_at_is_said(
    application: Application, project: Project
) -> None:
    describe(project, application)
    run = check(project)
    assert run.status == 0, run.output
    skipped = {case.step: case.message for case in run.cases if case.outcome != "passed"}
    assert set(skipped) == {"test_its_version_is_maintained", "test_it_has_not_grown_beyond_measure"}
    assert 'thresholds: {minimum_version: "15.18"}' in skipped["test_its_version_is_maintained"]
    assert "shop has no verified backup yet" in skipped["test_it_has_not_grown_beyond_measure"]
    assert run.case("test_attachments_are_there").properties["orphans"] == "1"
    assert int(run.case("test_its_size_is_known").properties["bytes"]) > 1_000_000
    line = 'not checked "public"."account_move_id_seq" of "public"."account_move"."id": no index begins with the column'
    assert line in run.output
    assert {one["noted"] for one in run.named("check") if "noted" in one} >= {"orphans", "bytes", "not checked"}
    assert application.password not in run.output + run.xml


def test_an_ill_one_is_told_with_evidence_and_remedy(application: Application, project: Project) -> None:
    """Each message is read closely in tests/integration: here, that it gets to whoever runs the check."""
    describe(project, application, thresholds={"minimum_version": "98.7", "connections": 0.01})
    with application.connect() as connection:
        name = connection.execute("SELECT store_fname FROM ir_attachment ORDER BY id LIMIT 1").fetchone()
        assert name is not None
        lost = application.filestore / name[0]
        kept = lost.read_bytes()
        connection.execute("CREATE UNLOGGED TABLE cache (n int)")
        connection.execute("SELECT setval('mail_message_id_seq', 1)")
        lost.unlink()
        try:
            run = check(project, "--deep")
        finally:
            lost.write_bytes(kept)
            connection.execute("DROP TABLE cache")
            connection.execute("SELECT setval('mail_message_id_seq', (SELECT max(id) FROM mail_message))")
    assert run.status == 1, run.output
    words = {
        "test_its_version_is_maintained": "98.7 or newer",
        "test_connections_are_to_be_had": "the server: ",
        "test_sequences_are_ahead": "2 comes next, the column has up to 4000",
        "test_attachments_are_there": f"{name[0]}: missing",
        "test_tables_survive_a_crash": "ALTER TABLE public.cache SET LOGGED;",
    }
    for step, word in words.items():
        assert word in run.case(step).message, run.output
    assert {case.step for case in run.cases if case.outcome == "failed"} == set(words)


def test_growth_is_measured_against_the_newest_backup(application: Application, project: Project) -> None:
    describe(project, application, thresholds={"growth": 0.1})
    backup = project.run()
    assert backup.status == 0, backup.output
    with application.connect() as connection:
        connection.execute("CREATE TABLE fat AS SELECT n, repeat(md5(n::text), 30) x FROM generate_series(1, 9000) n")
        try:
            run = check(project, "-k", "grown")
        finally:
            connection.execute("DROP TABLE fat")
    assert run.status == 1, run.output
    assert "biggest: public.fat" in run.case("test_it_has_not_grown_beyond_measure").message


def test_a_database_that_is_not_there_passes_nothing(application: Application, project: Project) -> None:
    url = application.server.url("nowhere")
    own: dict[str, object] = {"database_url": url, "filestore": str(application.filestore), "backup_dir": "store"}
    project.write_inventory({"prod": {"shop": own}})
    run = check(project)
    assert run.status == 1, run.output
    assert "Database 'nowhere' does not exist" in run.case("test_it_answers").message
    assert set(run.outcomes().values()) <= {"failed", "error", "skipped"}


@pytest.fixture
def own(project: Project) -> Path:
    """A folder of somebody's own, which has nothing of this repository."""
    folder = project.folder / "own"
    for block in BLOCK.finditer(HOW_TO.read_text()):
        path = folder / block["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block["text"])
    return folder


def run_own(project: Project, own: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "my_checks", "--env=prod", f"--inventory={project.inventory}"]
    done = subprocess.run(
        [*command, *arguments, "-p", "no:cacheprovider", "-p", "no:hypothesispytest"],
        cwd=own,
        env={**project.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_three_checks_of_the_how_to_find_what_they_are_for(
    application: Application, project: Project, own: Path
) -> None:
    describe(project, application)
    with application.connect() as connection:
        connection.execute("CREATE TABLE mail_mail (state text, create_date timestamp)")
        connection.execute(f'GRANT SELECT ON mail_mail TO "{application.role}"')
        try:
            application.filestore.chmod(0o750)
            application.odoo_conf.chmod(0o640)
            status, output = run_own(project, own)
            assert status == 0, output
            assert "3 passed" in output
            connection.execute("INSERT INTO mail_mail VALUES ('outgoing', now() - interval '1 day')")
            application.filestore.chmod(0o755)
            application.odoo_conf.chmod(0o644)
            status, output = run_own(project, own)
            assert status == 1, output
            assert "3 failed" in output
            for said in ("1 mails have been waiting", f"chmod o= {application.filestore}", "chmod o= "):
                assert said in output
        finally:
            application.odoo_conf.chmod(0o600)
            connection.execute("DROP TABLE mail_mail")


def test_a_check_of_ones_own_sees_the_service_and_cannot_write(
    application: Application, project: Project, own: Path
) -> None:
    (own / "my_checks" / "test_ours.py").write_text(SERVICE)
    with tempfile.TemporaryDirectory(prefix="opsproof-own-") as folder:
        programs = {"steady": {"command": "sleep 600", "startsecs": "0"}}
        with running_supervisord(Path(folder), programs) as conf:
            await_true(lambda: "RUNNING" in control(conf, "status", "steady"), "it does not run")
            more = {"services": ["steady"], "service_manager": "supervisor", "supervisor_conf": str(conf)}
            describe(project, application, None, **more)
            status, output = run_own(project, own)
    assert status == 0, output
    assert "2 passed" in output
