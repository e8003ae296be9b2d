"""Manifests and sidecars for tests: whole and believable, with what a test changes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from opsproof.archive import manifest as records
from opsproof.archive.manifest import Manifest, Sidecar

TAKEN = datetime(2024, 3, 5, 1, 2, 3, 456789, tzinfo=UTC)
STEM = "acme_2024-03-05_01-02-03"


def database_record(**changes: Any) -> records.DatabaseRecord:
    """Return what a manifest says of a database."""
    values: dict[str, Any] = {
        "name": "acme",
        "owner": "odoo",
        "encoding": "UTF8",
        "collate": "C.UTF-8",
        "ctype": "C.UTF-8",
        "locale_provider": "libc",
        "locale": None,
        "connection_limit": -1,
        "bytes": 8_000_000,
        "acl": ("odoo=CTc/odoo",),
        "comment": None,
        "settings": (records.Setting(role=None, setting="timezone=UTC"),),
        "extensions": (records.Extension(name="plpgsql", version="1.0", schema_name="pg_catalog"),),
    }
    return records.DatabaseRecord(**{**values, **changes})


def filestore_record(**changes: Any) -> records.FilestoreRecord:
    """Return what a manifest says of a filestore."""
    values: dict[str, Any] = {
        "path": "/srv/odoo/filestore/acme",
        "owner": "odoo",
        "group": "odoo",
        "mode": "750",
        "content_addressed": True,
        "files": 1234,
        "bytes": 56789,
        "attachments": 1200,
        "missing": (),
    }
    return records.FilestoreRecord(**{**values, **changes})


def manifest_of(**changes: Any) -> Manifest:
    """Return a manifest of a bundle."""
    values: dict[str, Any] = {
        "opsproof_version": "0.1.0",
        "id": STEM,
        "kind": "scheduled",
        "environment": "prod",
        "target": "erp",
        "customer": "acme-corp",
        "taken": TAKEN,
        "started": TAKEN,
        "author": records.Author(user="ana", machine="runner-1", job=None, commit=None),
        "server": records.ServerRecord(
            version="15.18", version_num=150018, system_identifier="7300000000000000001", client_version="15.18"
        ),
        "database": database_record(),
        "fingerprint": "full",
        "alembic_revisions": ("4b1f0c7a2d10",),
        "odoo": None,
        "filestore": filestore_record(),
        "dump": records.Member(path=f"{STEM}.dump", bytes=10, sha256="d" * 64),
        "sql": records.Member(path=f"{STEM}.sql", bytes=11, sha256="e" * 64),
        "totals": records.Totals(
            tables=2,
            rows=7,
            large_objects=0,
            large_object_bytes=0,
            members=5,
            member_bytes=99,
            tables_sha256="1" * 64,
            members_sha256="2" * 64,
        ),
        "sequences": (records.SequenceRecord(sequence="public.t_id_seq", last_value=7),),
    }
    return Manifest(**{**values, **changes})


def sidecar_of(manifest: Manifest | None = None, **changes: Any) -> Sidecar:
    """Return the sidecar of a bundle."""
    manifest = manifest or manifest_of()
    values: dict[str, Any] = {
        "manifest": manifest,
        "name": f"{manifest.id}.zip",
        "bytes": 4_200_000,
        "sha256": "a" * 64,
        "verified": TAKEN,
        "checks": ("test_database_exists",),
    }
    return Sidecar(**{**values, **changes})
