"""Backups as others make them, opened without a server: what is in them, and with what words they are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opsproof.archive.foreign.recognising import open_foreign
from opsproof.archive.reading.backup import OpenedBackup
from opsproof.errors import ArchiveError
from tests.lab.foreign_inputs import (
    ATTACHMENTS,
    DATA,
    PLAIN_DUMP,
    attachment_name,
)

FILES = {attachment_name(content): content for content in ATTACHMENTS}
MANIFEST = json.dumps({"odoo_dump": "1", "db_name": "prod", "version": "17.0", "modules": {}}).encode()
ODOO = {"dump.sql": PLAIN_DUMP, "manifest.json": MANIFEST, **{f"filestore/{name}": FILES[name] for name in FILES}}
CUSTOM_DUMP = (DATA / "odoo-manager.dump").read_bytes()[:5000]


def read_files(backup: OpenedBackup) -> dict[str, bytes]:
    """Return every file of its filestore."""
    return {header.path: b"".join(chunks) for header, chunks in backup.open_files(lambda _: True)}


def extracted(backup: OpenedBackup, folder: Path) -> bytes:
    """Return what is extracted for the database; the folder is left as it was."""
    path = folder / "extracted"
    backup.extract_database(path)
    data = path.read_bytes()
    path.unlink()
    return data


def refusal(path: Path, filestore_database: str | None = None) -> str:
    """Check that a backup is refused with all that an error has to say; return it."""
    with pytest.raises(ArchiveError) as caught:
        open_foreign(path, filestore_database).verify()
    assert caught.value.kept == "nothing was changed"
    assert caught.value.expected
    assert caught.value.found
    assert caught.value.hint
    return str(caught.value)
