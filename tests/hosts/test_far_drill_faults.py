"""Drills on a real remote Odoo of what does not restore there, or is not right: each fails with that named.

Whatever it was, nothing that is served has changed, and nothing is left.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from opsproof.archive.manifest import Sidecar, read_sidecar
from opsproof.archive.names import SIDECAR, sidecar_name
from tests.lab.action_run import ActionRun, Project
from tests.lab.application import running_application
from tests.lab.bundles import Piece
from tests.lab.debian_host import DebianHost
from tests.lab.odoo_host import ENVIRONMENT, TARGET, look, project_of, variables_of
from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import drop_others
from tests.lab.sealing import new_age_key
from tests.lab.verifying import rebuild

pytest_plugins = ["tests.lab.lab_hosts"]
pytestmark = pytest.mark.lab

DRILL = "actions/test_drill.py"
ROLE = "reports"


@dataclass(frozen=True)
class Shelf:
    """A project, and the one backup in its store."""

    project: Project
    backup: Sidecar

    @property
    def store(self) -> Path:
        """Where the backup is."""
        return self.project.folder / "store"

    def bundle(self, backup: Sidecar) -> Path:
        """Return the file of a backup."""
        return self.store / backup.name

    def sidecar(self, backup: Sidecar) -> Path:
        """Return the manifest beside a backup."""
        return self.store / sidecar_name(backup.id)


def taken_by(project: Project, folder: Path, env: str = ENVIRONMENT) -> Sidecar:
    run = project.run(env=env)
    assert run.status == 0, run.output
    (path,) = folder.glob(f"*{SIDECAR}")
    return read_sidecar(path.read_bytes(), path.name)


@pytest.fixture(scope="module")
def taken(lab_host: DebianHost) -> Iterator[Shelf]:
    """A backup of the host's Odoo, in which a role besides Odoo's may read something."""
    lab_host.sql(f"CREATE ROLE {ROLE}")
    lab_host.sql(f"GRANT SELECT ON res_country TO {ROLE}")
    try:
        with project_of(lab_host, "ops") as project:
            yield Shelf(project, taken_by(project, project.folder / "store"))
    finally:
        lab_host.sql(f"DROP OWNED BY {ROLE}")
        lab_host.sql(f"DROP ROLE {ROLE}")


@pytest.fixture
def shelf(taken: Shelf, lab_host: DebianHost) -> Iterator[Shelf]:
    """The same in a project of the test's own, which may damage it."""
    with project_of(lab_host, "ops") as project:
        shutil.copytree(taken.store, project.folder / "store")
        yield Shelf(project, taken.backup)


@contextmanager
def untouched(host: DebianHost, project: Project) -> Iterator[None]:
    before = look(host)
    yield
    assert look(host) == before
    assert project.litter() == []


def require_named(run: ActionRun, step: str, restore: str, validation: str, *words: str) -> None:
    assert run.status == 1, run.output
    case = run.failed_step()
    assert case.step == step, run.output
    for word in (*words, "expected:", "found:", "hint:"):
        assert word in case.message, case.message
    (event,) = run.named("drill finished")
    assert (event["outcome"]["restore"], event["outcome"]["validation"]) == (restore, validation), run.output


def test_a_missing_attachment(shelf: Shelf, lab_host: DebianHost) -> None:
    lost: list[str] = []

    def lose(members: dict[str, Piece]) -> None:
        lost.append(next(name for name, piece in members.items() if name.startswith("filestore/") and piece.data))
        del members[lost[0]]

    rebuild(shelf, shelf.backup, lose)
    with untouched(lab_host, shelf.project):
        run = shelf.project.run(action=DRILL, env=ENVIRONMENT)
    require_named(run, "test_data_holds", "passed", "failed", f"{lost[0].removeprefix('filestore/')}: missing")


def test_a_row_changed_after_the_fingerprint(shelf: Shelf, lab_host: DebianHost) -> None:
    def change(members: dict[str, Piece]) -> None:
        (name,) = (one for one in members if one.endswith(".dump"))
        changed = members[name].data.replace(b"admin@yourcompany.example.com", b"admin@yourcompany.example.net")
        assert changed != members[name].data
        members[name] = Piece(name, changed)

    rebuild(shelf, shelf.backup, change)
    with untouched(lab_host, shelf.project):
        run = shelf.project.run(action=DRILL, env=ENVIRONMENT)
    require_named(run, "test_scratch_database_is_the_backup", "failed", "not reached", "public.res_partner")


def test_a_missing_role(shelf: Shelf, lab_host: DebianHost) -> None:
    lab_host.sql(f"ALTER ROLE {ROLE} RENAME TO {ROLE}_of_before")
    try:
        with untouched(lab_host, shelf.project):
            run = shelf.project.run(action=DRILL, env=ENVIRONMENT)
    finally:
        lab_host.sql(f"ALTER ROLE {ROLE}_of_before RENAME TO {ROLE}")
    require_named(run, "test_nothing_is_in_the_way", "failed", "not reached", "in the way of a drill", ROLE)


def test_a_wrong_key(lab_host: DebianHost) -> None:
    ours, theirs = new_age_key(), new_age_key()
    with project_of(lab_host, "ops", encryption={"recipients": [ours.recipient]}) as project:
        assert taken_by(project, project.folder / "store").name.endswith(".zip.age")
        with untouched(lab_host, project):
            run = project.run(action=DRILL, env=ENVIRONMENT, environ={"OPSPROOF_AGE_IDENTITY": theirs.secret})
    require_named(run, "test_backup_is_whole", "broken", "not reached", "OPSPROOF_AGE_IDENTITY")


def test_a_server_too_old(lab_host: DebianHost, wheel_postgres: PostgresServer, tmp_path: Path) -> None:
    with running_application(wheel_postgres, tmp_path, attachments=2) as newer, project_of(lab_host, "ops") as project:
        try:
            production = {
                "ansible_connection": "local",
                "odoo_conf": str(newer.odoo_conf),
                "pg_bindir": str(wheel_postgres.bindir),
                "backup_dir": str(project.folder / "store"),
            }
            staging = {TARGET: variables_of(lab_host, "ops")}
            # Ansible knows a host of one name once, whatever groups it is in.
            project.write_inventory({"prod": {"newer": production}, ENVIRONMENT: staging})
            taken_by(project, project.folder / "store", "prod")
            with untouched(lab_host, project):
                run = project.run("--from=prod/newer", action=DRILL, env=ENVIRONMENT)
        finally:
            drop_others(newer)
    require_named(
        run,
        "test_nothing_is_in_the_way",
        "failed",
        "not reached",
        "pg_restore 13",
        "a server that is not older than the one that the backup came from",
    )
