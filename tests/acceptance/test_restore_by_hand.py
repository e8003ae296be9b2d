"""RESTORE.txt followed to the letter, in a shell, against an empty server: the same database and files come back."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import xxhash
from psycopg import sql

from opsproof.archive.manifest import TableRecord
from tests.lab.application import file_contents, table_contents
from tests.lab.finished_backup import FinishedBackup, empty_cluster
from tests.lab.postgres_server import PostgresServer

COMMAND, ALTERNATIVE = "    ", "       "


@dataclass(frozen=True)
class Restored:
    """What came of following the text."""

    cluster: PostgresServer
    backup: FinishedBackup
    folder: Path


def commands(text: str, indentation: str) -> list[str]:
    """Return the lines that begin with exactly this many spaces, as the text itself says which to run."""
    return [
        line.strip() for line in text.splitlines() if line.startswith(indentation) and line[len(indentation)] != " "
    ]


def run_in_shell(line: str, folder: Path, cluster: PostgresServer) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": f"{cluster.bindir}:{os.environ['PATH']}",
        "HOME": str(folder),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(cluster.port),
        "PGUSER": "postgres",
        "PGPASSWORD": cluster.password,
    }
    return subprocess.run(["sh", "-c", line], cwd=folder, env=environ, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def restored(finished_backup: FinishedBackup, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restored]:
    folder = tmp_path_factory.mktemp("by-hand")
    shutil.copy(finished_backup.bundle, folder)
    live, aside = finished_backup.application.filestore, folder / "live"
    # The text names the original's own folder, which must be free as on a new machine.
    live.rename(aside)
    try:
        with empty_cluster(finished_backup.kind) as cluster:
            for line in commands(finished_backup.read("RESTORE.txt").decode(), COMMAND):
                done = run_in_shell(line, folder, cluster)
                assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            yield Restored(cluster, finished_backup, folder)
    finally:
        shutil.rmtree(live, ignore_errors=True)
        aside.rename(live)


def test_the_database_is_the_original_again(restored: Restored) -> None:
    backup = restored.backup
    with restored.cluster.connect(backup.application.name) as connection:
        contents = table_contents(connection)
    written = {"public.ir_attachment", "public.mail_message"} if backup.is_moving else set()
    assert contents.keys() == backup.contents.keys()
    assert {name for name, content in contents.items() if content != backup.contents[name]} == written


def test_the_database_has_the_fingerprints_that_the_bundle_lists(restored: Restored) -> None:
    tables = [TableRecord.model_validate_json(line) for line in restored.backup.read("tables.jsonl").splitlines()]
    with restored.cluster.connect(restored.backup.application.name) as connection:
        connection.execute("SET timezone = 'UTC'")
        for table in tables:
            digest, rows = xxhash.xxh3_128(), 0
            with connection.cursor() as cursor:
                columns = cursor.execute(
                    "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
                    " AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
                    (table.table,),
                ).fetchall()
                listed = sql.SQL(" ({})").format(sql.SQL(", ").join(sql.Identifier(name) for (name,) in columns))
                with cursor.copy(
                    sql.SQL("COPY {}{} TO STDOUT").format(sql.SQL(table.table), listed if columns else sql.SQL(""))
                ) as copy:
                    for data in copy:
                        digest.update(data)
                        rows += bytes(data).count(b"\n")
            assert (rows, digest.hexdigest()) == (table.rows, table.fingerprint), table.table


def test_every_file_is_back_and_every_attachment_has_one(restored: Restored) -> None:
    backup = restored.backup
    files = file_contents(backup.application.filestore)
    assert files.items() >= backup.files.items()
    assert backup.is_moving or files == backup.files
    with restored.cluster.connect(backup.application.name) as connection:
        named = {row[0] for row in connection.execute("SELECT store_fname FROM ir_attachment")}
    assert named <= files.keys()
    assert len(named) >= 40


def test_owner_settings_comment_and_grants_are_back(restored: Restored) -> None:
    query = (
        "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype, datconnlimit,"
        " shobj_description(d.oid, 'pg_database'), datacl::text,"
        " (SELECT array_agg(s.setconfig::text) FROM pg_db_role_setting s WHERE setdatabase = d.oid)"
        " FROM pg_database d WHERE datname = current_database()"
    )
    with (
        restored.backup.application.connect() as original,
        restored.cluster.connect(restored.backup.application.name) as copy,
    ):
        assert copy.execute(query).fetchone() == original.execute(query).fetchone()
        assert copy.execute("SELECT last_value FROM res_partner_id_seq").fetchone() == (900,)
        assert copy.execute("SELECT count(*) FROM pg_stats WHERE tablename = 'res_partner'").fetchone() != (0,)


def test_roles_come_back_without_their_passwords(restored: Restored) -> None:
    with restored.cluster.connect() as connection:
        row = connection.execute(
            "SELECT rolcanlogin, rolpassword IS NULL FROM pg_authid WHERE rolname = %s",
            (restored.backup.application.role,),
        ).fetchone()
    assert row == (True, True)
    assert b"SCRAM-SHA-256" not in restored.backup.read("roles.sql")


def test_the_alternatives_give_the_same_database_under_another_name(restored: Restored) -> None:
    """The lines that are indented deeper: a database made by hand, from the dump and from the SQL."""
    create, from_dump, from_sql = commands(restored.backup.read("RESTORE.txt").decode(), ALTERNATIVE)
    cluster = restored.cluster
    with cluster.connect(restored.backup.application.name) as connection:
        contents = table_contents(connection)
    for name, line in (("by_dump", from_dump), ("by_sql", from_sql)):
        for each in (create, line):
            done = run_in_shell(each.replace("NAME", name), restored.folder, cluster)
            assert done.returncode == 0, f"{each}\n{done.stderr}"
        with cluster.connect(name) as connection:
            assert table_contents(connection) == contents
