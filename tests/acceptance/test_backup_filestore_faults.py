"""When files are missing, damaged or not where the configuration says; and when the temporary disk is full."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest

from opsproof.archive.manifest import read_sidecar
from opsproof.system.files.filestore import Filestore
from opsproof.system.hosts.host import Host
from opsproof.target import Connection, FilestoreSettings
from tests.lab.action_run import Project, require_failure
from tests.lab.application import Application, file_contents, running_application
from tests.lab.backup_runs import describe
from tests.lab.disks import small_disk
from tests.lab.postgres_server import PostgresServer

MIB = 1 << 20


def named_attachment(application: Application) -> Path:
    """Return a file that a row names; the filestore has one that none does."""
    return next(path for path in application.attachments() if path.read_bytes() != b"an orphan")


@contextmanager
def lost(path: Path, damage: bytes | None = None) -> Iterator[None]:
    """Take a file away, or put another content in its place, for as long as the block lasts."""
    content = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize(("damage", "word"), [(None, "is missing"), (b"another content", "is damaged")])
def test_an_attachment_that_is_not_as_the_database_names_it_fails_the_backup(
    project: Project, application: Application, damage: bytes | None, word: str
) -> None:
    describe(project, application)
    victim = named_attachment(application)
    with lost(victim, damage):
        files = file_contents(application.filestore)
        run = project.run()
        assert file_contents(application.filestore) == files
    assert run.status == 1, run.output
    case = run.failed_step()
    assert case.step == "test_attachments_are_in_the_bundle"
    assert "1 of 6 attachments are not in the filestore as the database names them" in case.message
    assert f"{victim.relative_to(application.filestore)} {word}" in case.message
    assert f"data_dir in {application.odoo_conf}" in case.message
    assert "set accept_missing_files: 1" in case.message
    assert (project.stored(), project.litter(), application.frozen.exists()) == ([], [], False)


def test_a_backup_of_another_database_with_the_same_folder_is_left_alone(
    project: Project, application: Application
) -> None:
    describe(project, application)
    settings = FilestoreSettings(PurePosixPath(application.filestore), content_addressed=True, origin="hosts.yml")
    other = Filestore(Host(Connection()), settings, "shop/2")
    other.freeze()
    files = other.measure()
    try:
        run = project.run()
        assert run.status == 0, run.output
        assert (other.is_frozen(), other.measure(), application.frozen.exists()) == (True, files, False)
    finally:
        other.thaw()


def test_what_was_lost_long_ago_can_be_accepted_and_is_noted_in_the_manifest(
    project: Project, application: Application
) -> None:
    describe(project, application, accept_missing_files=1)
    victim = named_attachment(application)
    with lost(victim):
        run = project.run()
    assert run.status == 0, run.output
    (sidecar,) = project.store.glob("*.manifest.json")
    filestore = read_sidecar(sidecar.read_bytes(), sidecar.name).manifest.filestore
    assert filestore is not None
    assert filestore.missing == (victim.relative_to(application.filestore).as_posix(),)
    assert filestore.files == len(file_contents(application.filestore)) - 1


def test_a_data_dir_without_filestore_is_an_error_that_names_the_place_to_correct(
    project: Project, application: Application
) -> None:
    conf = project.folder / "odoo.conf"
    text = application.odoo_conf.read_text()
    conf.write_text(text.replace(f"data_dir = {application.data_dir}", f"data_dir = {project.folder / 'nowhere'}"))
    describe(project, application, odoo_conf=str(conf))
    run = project.run()
    assert run.status == 1
    case = run.failed_step()
    assert case.step == "test_filestore_exists"
    assert "Filestore not found: check data_dir in" in case.message
    assert f"data_dir in {conf}" in case.message
    assert "`filestore: none`" in case.message
    assert (project.stored(), project.litter()) == ([], [])


def test_a_target_that_keeps_no_files_says_so(project: Project, application: Application) -> None:
    describe(project, application, filestore="none")
    run = project.run()
    assert run.status == 0, run.output
    assert "filestore  none" in run.output
    (stored,) = project.store.glob("*.sql")
    assert stored.name.startswith("backup_prod_")


def test_a_folder_that_is_not_content_addressed_is_copied_and_backed_up(
    project: Project, wheel_postgres: PostgresServer
) -> None:
    folder = project.folder / "uploads"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "ünïcode name.txt").write_text("content")
    (folder / "link").symlink_to("deep/er")
    name = f"uploads_{secrets.token_hex(4)}"
    wheel_postgres.create_database(name, "CREATE TABLE uploads AS SELECT 'deep/er' AS path")
    own = {"database_url": wheel_postgres.url(name), "backup_dir": str(project.store), "filestore": str(folder)}
    project.write_inventory({"prod": {"shop": {**own, "pg_bindir": str(wheel_postgres.bindir)}}})
    try:
        run = project.run()
    finally:
        wheel_postgres.drop_database(name)
    assert run.status == 0, run.output
    (bundle,) = project.store.glob("*.zip")
    target = project.folder / "unpacked"
    subprocess.run(["unzip", "-q", str(bundle), "filestore/*", "-d", str(target)], check=True, timeout=60)
    assert file_contents(target / "filestore") == file_contents(folder)
    assert (target / "filestore" / "link").readlink() == Path("deep/er")
    assert list(folder.parent.glob(".*")) == []


@pytest.fixture(scope="module")
def bulky(wheel_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """A database whose dump needs more temporary disk than half its size: what it holds cannot be compressed."""
    with running_application(wheel_postgres, tmp_path_factory.mktemp("bulky"), attachments=1) as application:
        with application.connect() as connection:
            connection.execute(
                "CREATE TABLE noise AS SELECT (SELECT string_agg(uuid_send(gen_random_uuid()), '')"
                " FROM generate_series(1, 600) WHERE i > 0) AS noise FROM generate_series(1, 1500) i"
            )
            connection.execute(f'ALTER TABLE noise OWNER TO "{application.role}"'.encode())
        yield application


@pytest.mark.parametrize("left", ["", "os.mkdir(path)"], ids=["no folder", "an empty folder"])
def test_files_that_are_gone_between_two_steps_are_no_empty_filestore(
    project: Project, application: Application, tmp_path: Path, left: str
) -> None:
    """A database without attachments names no file that could be missed."""
    server, name, files = application.server, f"plain_{secrets.token_hex(4)}", tmp_path / "files"
    server.create_database(name, "CREATE TABLE rows AS SELECT generate_series(1, 10) AS n")
    files.mkdir()
    (files / "report.pdf").write_bytes(b"a report")
    own = {"database_url": server.url(name), "backup_dir": str(project.store), "pg_bindir": str(server.bindir)}
    project.write_inventory({"prod": {"shop": {**own, "filestore": str(files)}}})
    (project.folder / "away.py").write_text(
        f"import os\npath = {str(files)!r}\n"
        "def pytest_runtest_teardown(item):\n"
        "    if item.name.startswith('test_take_lock'):\n"
        f"        os.rename(path, path + '-away')\n        {left}\n"
    )
    try:
        run = project.run("-p", "away")
    finally:
        server.drop_database(name)
    require_failure(run, "test_dump_database", f"The files of {files} are gone since this backup began", "findmnt")
    assert (project.stored(), project.litter()) == ([], [])


def test_a_temporary_disk_that_fills_up_leaves_no_backup(project: Project, bulky: Application) -> None:
    describe(project, bulky)
    files = file_contents(bulky.filestore)
    with small_disk(project.temporary, 16 * MIB) as mounted:
        # Where nothing can be mounted, a limit on the size of files ends the same way.
        run = project.run(size=None if mounted else 8 * MIB)
        left = project.litter()
    assert run.status == 1, run.output
    case = run.failed_step()
    assert case.step == "test_dump_database"
    assert "ArchiveError: The temporary file cannot be written" in case.message
    assert ("No space left" if mounted else "File too large") in case.message
    assert "TMPDIR=/path pytest" in case.message
    assert (project.stored(), left, bulky.frozen.exists()) == ([], [], False)
    assert file_contents(bulky.filestore) == files


def test_a_temporary_disk_that_is_too_small_is_refused_before_anything_begins(
    project: Project, bulky: Application
) -> None:
    describe(project, bulky)
    with small_disk(project.temporary, 2 * MIB) as mounted:
        if not mounted:
            pytest.skip("only root can mount a small disk; the check itself has its unit test")
        run = project.run()
    assert run.status == 1, run.output
    case = run.failed_step()
    assert case.step == "test_room_is_enough"
    assert "Not enough room in" in case.message
    assert "TMPDIR=/path pytest" in case.message
    assert run.outcomes()["test_take_lock"] == "skipped"


def test_a_store_without_room_leaves_nothing(project: Project, bulky: Application) -> None:
    """The store's disk fills up while the bundle is written."""
    describe(project, bulky)
    project.store.mkdir()
    with small_disk(project.store, 14 * MIB) as mounted:
        run = project.run(size=None if mounted else 20 * MIB)
        stored = project.stored()
    assert run.status == 1, run.output
    case = run.failed_step()
    assert case.step == "test_write_bundle"
    assert "no room left in the directory store" in case.message
    assert "df -h" in case.message
    assert (stored, project.litter(), bulky.frozen.exists()) == ([], [], False)
