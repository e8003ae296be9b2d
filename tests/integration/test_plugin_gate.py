"""What may run and what may not: a procedure is all of its steps, in order, in one process, on targets that exist."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsproof.report.reading import read_story
from tests.lab.action_run import BACKUP, Project, make_project
from tests.lab.postgres_server import PostgresServer

REFUSED = pytest.ExitCode.USAGE_ERROR
NODE = f"{BACKUP}::TestBackup::test_publish_manifest"
# A plugin that changes the stored copy between two steps.
FLIP = """
import pathlib

def pytest_runtest_teardown(item):
    if item.name.startswith("test_complete_upload"):
        path = next(pathlib.Path("store").glob("*.sql"))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
"""
# One that runs what has failed once more: the first time is not told, or by another word than `failed`.
AGAIN = """
import pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    for is_last in (False, True):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        again = not is_last and any(report.failed for report in reports)
        for report in reports:
            report.outcome = "{word}" if again and report.failed else report.outcome
            if report.outcome:
                item.ihook.pytest_runtest_logreport(report=report)
        if not again:
            return True
"""


@pytest.fixture(scope="module")
def database(wheel_postgres: PostgresServer) -> Iterator[str]:
    """The URL of a small database."""
    name = f"gate_{secrets.token_hex(4)}"
    wheel_postgres.create_database(name, "CREATE TABLE rows AS SELECT generate_series(1, 10) AS n")
    yield wheel_postgres.url(name)
    wheel_postgres.drop_database(name)


@pytest.fixture
def project(tmp_path: Path, database: str, wheel_postgres: PostgresServer) -> Project:
    """A project of two environments: prod with the targets shop and office, staging with one."""
    project = make_project(tmp_path / "project")
    own = {"database_url": database, "backup_dir": str(project.store), "pg_bindir": str(wheel_postgres.bindir)}
    project.write_inventory({"prod": {"shop": own, "office": own}, "staging": {"trial": own}})
    return project


def require_nothing_run(project: Project) -> None:
    """Check that no step began: neither store nor journal know of one."""
    events = [json.loads(line) for path in project.logs.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert [event for event in events if event["event"] == "step"] == []
    assert project.stored() == []


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-k", "database_exists"], id="-k"),
        pytest.param(["-m", "not changes"], id="-m not"),
        pytest.param([f"--deselect={NODE}[shop]"], id="--deselect of one target"),
    ],
)
def test_a_part_of_a_procedure_cannot_be_selected(project: Project, arguments: list[str]) -> None:
    run = project.run(*arguments)
    assert run.status == REFUSED, run.output
    assert "A part of TestBackup was selected" in run.output
    assert "leave out -k, -m, --deselect and ::step; choose targets with --target=NAME" in run.output
    require_nothing_run(project)


@pytest.mark.parametrize("step", ["test_database_exists", "test_publish_manifest[shop]"])
def test_a_step_cannot_be_named_alone(project: Project, step: str) -> None:
    run = project.run(action=f"{BACKUP}::TestBackup::{step}")
    assert run.status == REFUSED, run.output
    assert "A part of TestBackup was selected" in run.output
    require_nothing_run(project)


def test_steps_in_another_order_are_refused(project: Project) -> None:
    (project.folder / "backwards.py").write_text("def pytest_collection_modifyitems(items):\n    items.reverse()\n")
    run = project.run("-p", "backwards")
    assert run.status == REFUSED, run.output
    assert "in their order" in run.output
    require_nothing_run(project)


def test_an_order_that_is_changed_after_the_collection_fails_at_the_first_step(project: Project) -> None:
    """Whatever another plugin does: a step looks for itself whether those before it have passed."""
    (project.folder / "backwards.py").write_text(
        "import pytest\n@pytest.hookimpl(trylast=True)\ndef pytest_collection_finish(session):\n"
        "    session.items.reverse()\n"
    )
    run = project.run("-p", "backwards")
    assert run.status != 0, run.output
    assert "needs the steps before it to have passed in this process" in run.output
    assert project.stored() == []
    assert "passed" not in {case.outcome for case in run.cases}


def test_a_selection_that_leaves_nothing_is_no_success(project: Project) -> None:
    run = project.run("-k", "no_such_step")
    assert run.status not in (0, 1), run.output
    require_nothing_run(project)


@pytest.mark.parametrize("workers", [["-n", "2"], ["-n", "1", "--dist", "loadfile"]])
def test_workers_refuse_a_part_of_a_procedure_too(project: Project, workers: list[str]) -> None:
    run = project.run(*workers, "-k", "database_exists")
    assert run.status == REFUSED, run.output
    assert "A part of TestBackup was selected" in run.output
    require_nothing_run(project)


def test_a_broken_inventory_is_told_once_by_workers_too(project: Project) -> None:
    project.inventory.write_text("prod:\n  hosts: {}\n")
    run = project.run("-n", "2")
    assert run.status == REFUSED, run.output
    assert "hosts.yml" in run.output
    require_nothing_run(project)


def test_a_run_without_workers_loads_nothing_of_a_fleet(project: Project) -> None:
    (project.folder / "loaded.py").write_text(
        "import sys\n"
        "def pytest_sessionfinish():\n"
        "    names = ('xdist', 'execnet', 'opsproof.plugin.fleets.fleet', 'opsproof.plugin.fleets.worker')\n"
        "    print('LOADED', [name for name in names if name in sys.modules])\n"
    )
    run = project.run(
        "--target=shop", "-p", "no:xdist", "-p", "loaded", "-s", environ={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    )
    assert run.status == 0, run.output
    assert "LOADED []" in run.output


@pytest.mark.parametrize(
    ("env", "arguments", "words"),
    [
        ("prid", [], ["There is no environment prid", "prod", "staging", "--env=prod"]),
        ("prod", ["--target=shopp"], ["There is no target shopp in prod", "shop, office", "--target=shop"]),
        ("shop", [], ["There is no environment shop", "--env=prod --target=shop"]),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(
    project: Project, env: str, arguments: list[str], words: list[str]
) -> None:
    run = project.run(*arguments, env=env)
    assert run.status == REFUSED, run.output
    for word in words:
        assert word in run.output
    require_nothing_run(project)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prod: [this is no inventory", ["hosts.yml"]),
        ("prod:\n  hosts: {}\n", ["prod", "hosts.yml"]),
        ('{"prod": {"hosts": {"shop": {"ansible_connection": "local"}}}}', ["Nothing says where the database of shop"]),
        (
            '{"prod": {"hosts": {"shop": {"ansible_connection": "local", "databse_url": "postgresql://h/d"}}}}',
            ["databse_url", "did you mean database_url?"],
        ),
    ],
)
def test_a_broken_inventory_is_a_usage_error_that_names_its_place(
    project: Project, text: str, words: list[str]
) -> None:
    project.inventory.write_text(text)
    run = project.run()
    assert run.status == REFUSED, run.output
    for word in words:
        assert word in run.output
    assert "Traceback" not in run.output
    require_nothing_run(project)


def test_no_inventory_and_no_variables_is_a_usage_error(project: Project) -> None:
    project.inventory.unlink()
    run = project.run(inventory=False)
    assert run.status == REFUSED, run.output
    assert "Nothing says what prod is" in run.output
    assert "hosts.example.yml" in run.output
    missing = project.run()
    assert missing.status == REFUSED, missing.output
    assert "hosts.yml" in missing.output


def test_the_inventory_of_the_folder_is_found_without_being_named(project: Project) -> None:
    run = project.run("--target=shop", "--dry-run", inventory=False)
    assert run.status == 0, run.output
    assert "environment prod from hosts.yml" in run.output


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-p", "no:terminal", "-o", "addopts=--import-mode=importlib"], id="no:terminal"),
        pytest.param(["-p", "no:capture"], id="no:capture"),
        pytest.param(["-s", "-q", "-p", "no:logging", "-p", "no:xdist"], id="-s -q"),
        pytest.param(["-x", "--showlocals", "--log-cli-level=INFO"], id="-x -l"),
    ],
)
def test_a_backup_needs_none_of_these_parts_of_pytest(project: Project, arguments: list[str]) -> None:
    run = project.run("--target=shop", *arguments)
    assert run.status == 0, run.output
    assert set(run.outcomes().values()) == {"passed"}
    assert sorted(Path(name).suffix for name in project.stored()) == [".json", ".sql"]
    assert project.litter() == []


def test_the_same_works_where_assertions_are_compiled_away(project: Project) -> None:
    run = project.run("--target=shop", environ={"PYTHONOPTIMIZE": "1"})
    assert run.status == 0, run.output
    assert len(project.stored()) == 2


@pytest.mark.parametrize("optimize", ["", "2"])
def test_a_proof_that_is_missing_fails_without_assertions_too(project: Project, optimize: str) -> None:
    """The stored copy is changed between two steps: what finds it is the engine, not an assertion."""
    (project.folder / "flip.py").write_text(FLIP)
    run = project.run("--target=shop", "-p", "flip", environ={"PYTHONOPTIMIZE": optimize})
    assert run.status == 1, run.output
    assert run.failed_step().step == "test_stored_copy_is_what_was_sent"
    assert "XXH3-128" in run.failed_step().message


def test_collecting_alone_changes_nothing(project: Project) -> None:
    run = project.run("--collect-only", "-q")
    assert run.status == 0, run.output
    assert run.output.count("test_publish_manifest") == 2
    assert project.stored() == []


def test_a_failure_of_one_target_stops_that_target_alone(project: Project, wheel_postgres: PostgresServer) -> None:
    text = project.inventory.read_text()
    inventory = json.loads(text)
    inventory["prod"]["hosts"]["shop"]["database_url"] = wheel_postgres.url("no_such_database")
    project.inventory.write_text(json.dumps(inventory))
    run = project.run()
    assert run.status == 1, run.output
    shop, office = run.outcomes("shop"), run.outcomes("office")
    assert list(shop) == list(office)
    assert list(shop.values()) == ["failed"] + ["skipped"] * 13
    assert set(office.values()) == {"passed"}
    assert {case.message.splitlines()[0] for case in run.cases if case.outcome == "skipped"} == {
        "step test_database_exists did not pass"
    }
    assert len(project.stored()) == 2
    assert "office: backup" in run.output
    assert "shop: backup" not in run.output


def test_one_target_can_be_chosen(project: Project) -> None:
    run = project.run("--target=office")
    assert run.status == 0, run.output
    assert {case.target for case in run.cases} == {"office"}
    assert len(project.stored()) == 2


def test_a_target_whose_steps_were_left_out_has_not_passed_though_another_one_failed(project: Project) -> None:
    """Whatever skips it: a plugin, or somebody's own action."""
    (project.folder / "leaving_out.py").write_text(
        "import pytest\n@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_call(item):\n"
        "    if item.name == 'test_client_programs_fit[shop]':\n        pytest.skip('not today')\n"
        "    if item.name == 'test_database_exists[office]':\n        pytest.fail('it is not there')\n"
    )
    run = project.run("-p", "leaving_out")
    assert run.status == pytest.ExitCode.TESTS_FAILED, run.output
    (journal,) = project.logs.glob("*.jsonl")
    story = read_story(journal.read_text().splitlines())
    assert {one.name: one.verdict for one in story.targets} == {"shop": "failed", "office": "failed"}
    assert "TestBackup of shop was not brought to its end" in run.output
    assert "TestBackup of office was not brought to its end" not in run.output


@pytest.mark.parametrize("word", ["rerun", ""], ids=["told as rerun", "not told"])
def test_a_step_that_has_failed_is_not_forgiven_where_a_plugin_runs_it_again(project: Project, word: str) -> None:
    (project.folder / "flip.py").write_text(FLIP)
    (project.folder / "again.py").write_text(AGAIN.replace("{word}", word))
    metrics = project.folder / "opsproof.prom"
    run = project.run("--target=shop", "-p", "flip", "-p", "again", f"--metrics-file={metrics}")
    assert run.status == 1, run.output
    assert "INTERNALERROR" not in run.output
    assert "TestBackup of shop was not brought to its end" in run.output
    assert "opsproof_last_success_timestamp_seconds{" not in metrics.read_text()
    assert not any(name.endswith(".manifest.json") for name in project.stored())


@pytest.mark.parametrize(("said", "is_dry"), [("Y", True), (" on ", True), ("0", False), ("n", False), ("", False)])
def test_the_variable_says_whether_it_is_a_dry_run(project: Project, said: str, is_dry: bool) -> None:
    run = project.run("--target=shop", environ={"DRY_RUN": said})
    assert run.status == 0, run.output
    assert bool(project.stored()) != is_dry


def test_a_word_that_may_have_meant_a_dry_run_does_nothing(project: Project) -> None:
    run = project.run("--target=shop", environ={"DRY_RUN": "enabled"})
    assert run.status == REFUSED, run.output
    assert "DRY_RUN does not say whether this is a dry run" in run.output
    require_nothing_run(project)
