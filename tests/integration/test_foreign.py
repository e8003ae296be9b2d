"""Others' backups, made by the programs that make them, are restored from what is read of them."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsproof.archive.foreign.recognising import open_foreign
from opsproof.errors import ArchiveError
from opsproof.odoo import is_attachment_name
from tests.lab.foreign_inputs import (
    ATTACHMENTS,
    DATA,
    PLAIN_DUMP,
    attachment_name,
    compress,
    dump,
    load,
    make_playbook_zip,
    run_client,
    write_files,
)
from tests.lab.postgres_server import PostgresServer

FILES = {attachment_name(content): content for content in ATTACHMENTS}
ROWS = [(1, "two\nlines"), (2, "back\\slash \\. and \t tab"), (3, None)]
SHAPE = (
    "CREATE TABLE note (id int PRIMARY KEY, body text)",
    "INSERT INTO note VALUES (1, E'two\\nlines'), (2, E'back\\\\slash \\\\. and \\t tab'), (3, NULL)",
)


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    name = f"shop_{secrets.token_hex(3)}"
    postgres.create_database(name, *SHAPE)
    yield name
    postgres.drop_database(name)
    postgres.drop_database(f"{name}_restored")


@pytest.fixture
def filestore(tmp_path: Path, database: str) -> Path:
    path = tmp_path / "data" / "filestore" / database
    write_files(path, {**FILES, "checklist/ab/abc": b""})
    return path


def restored_rows(server: PostgresServer, database: str, path: Path, folder: Path) -> list[tuple[object, ...]]:
    """Return the rows of `note` after a backup's dump was loaded into a new database."""
    backup = open_foreign(path)
    assert backup.verify() == ()
    target = folder / f"extracted.{backup.database_format}"
    backup.extract_database(target)
    backup.close()
    assert target.stat().st_size == backup.database_bytes
    load(server, f"{database}_restored", target, backup.database_format)
    with server.connect(f"{database}_restored") as connection:
        return connection.execute("SELECT * FROM note ORDER BY id").fetchall()


@pytest.mark.parametrize("nested", [False, True], ids=["filestore", "filestore/database"])
def test_the_playbooks_zip_is_restored(
    postgres: PostgresServer, database: str, filestore: Path, tmp_path: Path, nested: bool
) -> None:
    path = make_playbook_zip(postgres, database, filestore, tmp_path, nested=nested)
    backup = open_foreign(path)
    assert backup.description == (
        f"zip without a manifest of database {database}: {database}_2026-01-31_02-00-00.dump and 4 files"
    )
    assert backup.unverified[-1].endswith(f"passed over, unread: {database}_2026-01-31_02-00-00.sql.")
    read = {header.path: b"".join(chunks) for header, chunks in backup.open_files(is_attachment_name)}
    assert (read, backup.files_count) == (FILES, 4)
    assert restored_rows(postgres, database, path, tmp_path) == ROWS


@pytest.mark.parametrize("options", [[], ["-0"], ["-fz"], ["-fd"]], ids=" ".join)
def test_whatever_zip_writes_is_read(tmp_path: Path, options: list[str]) -> None:
    """`-fz` writes zip64 throughout, `-fd` puts the sizes behind the content."""
    files = {f"filestore/{name}": content for name, content in FILES.items()}
    write_files(tmp_path / "work", {"x.sql": PLAIN_DUMP, "filestore/été.txt": b"", **files})
    path = tmp_path / "x.zip"
    subprocess.run(["zip", "-q", "-r", *options, str(path), "."], cwd=tmp_path / "work", check=True, timeout=60)
    backup = open_foreign(path)
    assert backup.verify() == ()
    read = {header.path: b"".join(chunks) for header, chunks in backup.open_files(lambda _: True)}
    assert read == {**FILES, "été.txt": b""}
    backup.extract_database(tmp_path / "extracted")
    assert (tmp_path / "extracted").read_bytes() == PLAIN_DUMP


@pytest.mark.parametrize("form", ["custom", "plain"])
@pytest.mark.parametrize("gzipped", [False, True], ids=["bare", "gzip"])
def test_a_dump_alone_is_restored(
    postgres: PostgresServer, database: str, tmp_path: Path, form: str, gzipped: bool
) -> None:
    path = dump(postgres, database, tmp_path / "taken", form)
    path = compress(path) if gzipped else path
    version = run_client(postgres, "pg_dump", "--version").stdout.decode().split(") ", 1)[1].strip()
    backup = open_foreign(path)
    assert backup.database_format == form
    assert f", by pg_dump {version}" in backup.description
    assert (f" of database {database}" in backup.description) == (form == "custom")
    assert restored_rows(postgres, database, path, tmp_path) == ROWS


@pytest.mark.parametrize("form", ["directory", "tar"])
def test_another_kind_of_dump_is_refused_with_what_to_type(
    postgres: PostgresServer, database: str, tmp_path: Path, form: str
) -> None:
    path = dump(postgres, database, tmp_path / "taken", form)
    with pytest.raises(ArchiveError, match=f"{form}-format dump") as caught:
        open_foreign(path)
    typed = re.search(r"pg_restore --file=(\S+)", caught.value.hint)
    assert typed
    run_client(postgres, "pg_restore", f"--file={tmp_path / typed[1]}", str(path))
    assert restored_rows(postgres, database, tmp_path / typed[1], tmp_path) == ROWS


def test_the_inside_of_a_directory_dump_is_refused_too(wheel_postgres: PostgresServer, tmp_path: Path) -> None:
    path = dump(wheel_postgres, "postgres", tmp_path / "taken", "directory")
    with pytest.raises(ArchiveError, match="directory-format dump"):
        open_foreign(path / "toc.dat")


def test_a_dump_of_a_whole_server_is_refused(wheel_postgres: PostgresServer, tmp_path: Path) -> None:
    run_client(wheel_postgres, "pg_dumpall", f"--file={tmp_path / 'all.sql'}")
    with pytest.raises(ArchiveError, match="whole server"):
        open_foreign(tmp_path / "all.sql")


@pytest.mark.parametrize(
    ("name", "form", "description"),
    [
        ("odoo-manager.zip", "plain", "Odoo 14.0 zip, by its database manager or click-odoo-backupdb,"),
        ("odoo-manager.dump", "custom", "custom-format dump"),
        ("click-odoo.zip", "plain", "Odoo 14.0 zip, by its database manager or click-odoo-backupdb,"),
        ("click-odoo.folder", "custom", "Odoo 14.0 folder, by click-odoo-backupdb,"),
        ("click-odoo.dump", "custom", "custom-format dump"),
    ],
)
def test_what_odoo_and_click_odoo_made_is_restored(
    wheel_postgres: PostgresServer, tmp_path: Path, name: str, form: str, description: str
) -> None:
    backup = open_foreign(DATA / name)
    assert backup.verify() == ()
    assert backup.description.startswith(f"{description} of database sample")
    assert backup.database_format == form
    backup.extract_database(tmp_path / "extracted")
    restored = f"odoo_{secrets.token_hex(3)}"
    load(wheel_postgres, restored, tmp_path / "extracted", form)
    with wheel_postgres.connect(restored) as connection:
        base = connection.execute("SELECT latest_version FROM ir_module_module WHERE name = 'base'").fetchall()
        named = connection.execute("SELECT DISTINCT store_fname FROM ir_attachment").fetchall()
        note = connection.execute("SELECT store_fname FROM ir_attachment WHERE name = 'notes.txt'").fetchall()
    wheel_postgres.drop_database(restored)
    assert base == [("14.0.1.3",)]
    attachments = {path for (path,) in named}
    held = {member.path for member in backup.file_members()}
    if name.endswith(".dump"):
        assert (held, backup.files_count) == (set(), 0)
        assert any("no filestore" in one for one in backup.unverified)
        return
    assert {path for path in held if is_attachment_name(path)} == attachments
    [(_, chunks)] = backup.open_files(lambda path: (path,) in note)
    assert b"".join(chunks) == b"The shop opens at nine.\n"


@pytest.mark.parametrize("name", ["click-odoo-denied.zip", "click-odoo-denied.folder"])
def test_the_empty_dump_of_a_pg_dump_that_failed_is_no_backup(name: str) -> None:
    manifest = (DATA / "click-odoo-denied.folder" / "manifest.json").read_text()
    assert json.loads(manifest)["modules"], "it looks as a good one does"
    with pytest.raises(ArchiveError, match="is empty") as caught:
        open_foreign(DATA / name)
    assert "pg_dump fails" in caught.value.found
