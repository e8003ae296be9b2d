"""What a restore refuses before it changes anything; and a disk that fills up all the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from psycopg import sql

from opsproof.archive.manifest import Manifest, Member, Sidecar, TableRecord, backup_id, to_json
from tests.lab.action_run import require_failure
from tests.lab.bundles import Piece, compose, pieces
from tests.lab.postgres_server import WHEEL, PostgresServer, restarted_postgres
from tests.lab.restored import restorable
from tests.lab.restorelab import Patient, fill, running_patient, small_disk
from tests.lab.waiting import await_true

PREFLIGHT = "test_nothing_is_in_the_way"
OPENING = "test_backup_is_whole"
CONTROL = "comment = 'of the shop'\ndefault_version = '1.0'\nrelocatable = true\nsuperuser = false\n"


def test_everything_that_is_in_the_way_is_told_at_once() -> None:
    with restarted_postgres(WHEEL, "-c wal_level=logical -c max_prepared_transactions=5") as server:
        (folder,) = {path.parent for path in server.folder.rglob("plpgsql.control")}
        control = folder / "shopkeeper.control"
        control.write_text(CONTROL)
        (folder / "shopkeeper--1.0.sql").write_text("CREATE FUNCTION keeper() RETURNS int LANGUAGE sql RETURN 1;\n")
        for path in (control, folder / "shopkeeper--1.0.sql"):
            path.chmod(0o644)
        with server.connect() as connection:
            connection.execute("CREATE ROLE gone")
        with running_patient(server) as patient:
            own = patient.own
            me = sql.Identifier(own.application.role)
            with own.application.connect() as connection:
                connection.execute("CREATE EXTENSION shopkeeper; ALTER TABLE public.nothing OWNER TO gone")
                connection.execute(sql.SQL("GRANT gone TO {}").format(me))
                own.take_backup()
                connection.execute("DROP EXTENSION shopkeeper")
                connection.execute(sql.SQL("ALTER TABLE public.nothing OWNER TO {}").format(me))
                connection.execute("DROP ROLE gone")
                connection.execute(sql.SQL("ALTER ROLE {} NOCREATEDB").format(me))
                control.unlink()
                connection.execute("SELECT pg_create_logical_replication_slot('reader', 'pgoutput')")
                connection.execute("BEGIN; INSERT INTO public.gate VALUES (2); PREPARE TRANSACTION 'half'")
            before, stored = patient.look(), own.stored()
            try:
                run = own.restore()
                message = require_failure(run, PREFLIGHT, "5 things stand in the way of a restore")
                for subject in ("a role 'gone'", "may create databases", "shopkeeper 1.0", "slot 'reader'", "'half'"):
                    assert subject in message
                for remedy in (
                    "CREATE ROLE gone",
                    "CREATEDB;",
                    "pg_drop_replication_slot('reader')",
                    "ROLLBACK PREPARED",
                ):
                    assert remedy in message
                patient.require_old(before)
                assert own.stored() == stored
            finally:
                with own.application.connect() as connection:
                    connection.execute("ROLLBACK PREPARED 'half'")
                    connection.execute("SELECT pg_drop_replication_slot('reader')")


def test_a_dump_of_a_newer_server(patient: Patient, system_postgres: PostgresServer, tmp_path: Path) -> None:
    dump = patient.own.backup.manifest.dump
    assert dump is not None
    path = tmp_path / "shop.dump"
    path.write_bytes(patient.read(dump.path))
    with restorable(system_postgres) as older:
        contents, databases = older.live_contents(), older.databases()
        run = older.restore(f"--backup={path}", f"--map-role={patient.own.application.role}={older.application.role}")
        message = require_failure(run, PREFLIGHT)
        assert "newer" in message or "unsupported version" in message
        assert (older.live_contents(), older.databases()) == (contents, databases)
        assert older.project.litter() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted by root")
def test_a_disk_that_is_full_before_and_one_that_fills_up_during_the_load(wheel_postgres: PostgresServer) -> None:
    with small_disk(wheel_postgres, 80) as disk:
        space, folder = sql.Identifier(f"space_{disk.name}"), disk / "space"
        folder.mkdir(mode=0o700)
        os.chown(folder, disk.stat().st_uid, disk.stat().st_gid)
        with wheel_postgres.connect() as connection:
            connection.execute(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(space, str(folder)))
        try:
            with running_patient(wheel_postgres) as patient:
                name, role = sql.Identifier(patient.name), sql.Identifier(patient.own.application.role)
                with wheel_postgres.connect() as connection:
                    connection.execute(sql.SQL("ALTER DATABASE {} SET TABLESPACE {}").format(name, space))
                    connection.execute(sql.SQL("GRANT CREATE ON TABLESPACE {} TO {}").format(space, role))
                    try:
                        require_full_disk(patient, disk)
                    finally:
                        connection.execute(sql.SQL("REVOKE ALL ON TABLESPACE {} FROM {}").format(space, role))
        finally:
            with wheel_postgres.connect() as connection:
                connection.execute(sql.SQL("DROP TABLESPACE {}").format(space))


def require_full_disk(patient: Patient, disk: Path) -> None:
    before = patient.look()
    filler = fill(disk)
    run = patient.own.restore()
    require_failure(run, PREFLIGHT, "room:", "for the database in ", str(disk))
    filler.unlink()
    patient.require_old(before)

    with patient.closed_gate() as open_gate, patient.begin_restore() as begun:
        begun.wait_until(lambda: patient.loaders() != [])
        filler = fill(disk)
        open_gate()
        run = begun.finish()
    require_failure(run, "test_build_side_database", "No space left on device")
    filler.unlink()
    patient.require_old(before)


@contextmanager
def in_store(patient: Patient, sidecar: Sidecar, data: bytes) -> Iterator[None]:
    """Put a backup into the store, with all that makes it look verified."""
    store = patient.own.project.store
    verified = sidecar.model_copy(update={"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    (store / sidecar.name).write_bytes(data)
    (store / f"{sidecar.id}.manifest.json").write_bytes(to_json(verified))
    try:
        yield
    finally:
        (store / sidecar.name).unlink()
        (store / f"{sidecar.id}.manifest.json").unlink()


def require_refusal(patient: Patient, sidecar: Sidecar, data: bytes, *words: str) -> None:
    await_true(patient.service.is_healthy, "the service does not answer")
    before = patient.look()
    with in_store(patient, sidecar, data):
        stored = patient.own.project.stored()
        run = patient.own.restore(f"--backup={sidecar.id}")
        require_failure(run, OPENING, *words)
        assert patient.own.project.stored() == stored
        patient.require_old(before)


def renamed(patient: Patient, seconds: int) -> Manifest:
    """Return the manifest of the patient's backup as that of another one."""
    manifest = patient.own.backup.manifest
    taken = manifest.taken + timedelta(seconds=seconds)
    return manifest.model_copy(update={"id": backup_id(patient.name, taken), "taken": taken})


def test_a_bundle_with_a_flipped_byte(patient: Patient) -> None:
    path = patient.own.project.store / patient.own.backup.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    manifest = renamed(patient, 1)
    sidecar = patient.own.backup.model_copy(update={"manifest": manifest, "name": f"{manifest.id}.zip"})
    require_refusal(patient, sidecar, bytes(data))


def test_a_bundle_with_a_member_outside_of_it(patient: Patient, tmp_path: Path) -> None:
    base = renamed(patient, 2)
    made: list[Manifest] = []

    def ours(manifest: Manifest) -> bytes:
        fields = ("dump", "sql", "filestore", "totals")
        made.append(base.model_copy(update={name: getattr(manifest, name) for name in fields}))
        return to_json(made[0])

    path = compose(tmp_path / "evil.zip", pieces(Piece("filestore/../../escaped", b"out")), manifest=ours)
    sidecar = patient.own.backup.model_copy(update={"manifest": made[0], "name": f"{base.id}.zip"})
    require_refusal(patient, sidecar, path.read_bytes(), "..")
    assert not list(patient.own.application.data_dir.rglob("escaped"))


def test_a_plain_dump_with_a_command_for_the_shell(patient: Patient, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    lines = patient.read(patient.own.backup.manifest.sql.path).splitlines(keepends=True)
    middle = next(number for number, line in enumerate(lines) if line.startswith(b"CREATE TABLE"))
    lines.insert(middle, f"\\! touch {mark}\n".encode())
    data = b"".join(lines)
    member = Member(path="backup_staging_20260101_000000.sql", bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    update = {"id": "backup_staging_20260101_000000", "dump": None, "sql": member, "filestore": None}
    manifest = patient.own.backup.manifest.model_copy(update=update)
    tables = tuple(map(TableRecord.model_validate_json, patient.read("tables.jsonl").splitlines()))
    sidecar = patient.own.backup.model_copy(update={"manifest": manifest, "name": member.path, "tables": tables})
    require_refusal(patient, sidecar, data, "The SQL holds what psql must not be given")
    assert not mark.exists()
