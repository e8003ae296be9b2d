"""Tables for a terminal, and the same as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsproof.archive.catalogue.listing import Entry
from opsproof.report.header import show_store
from opsproof.report.quantities import show_bytes
from opsproof.target import Environment

TIME = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True)
class StoreListing:
    """The backups of one target's store; `older` ones were not looked at."""

    target: str
    location: str
    entries: tuple[Entry, ...]
    older: int


def backups(listings: Sequence[StoreListing], *, as_json: bool) -> str:
    """Return the backups of each store, the newest first."""
    if as_json:
        return json.dumps([_json(listing) for listing in listings], indent=2, default=str)
    blocks = []
    for listing in listings:
        rows = [_row(entry) for entry in listing.entries]
        table = _table(("BACKUP", "TAKEN (UTC)", "SIZE", "VERIFIED", "ENVIRONMENT", "KIND", "TARGET"), rows)
        title = f"{listing.target}: {listing.location}"
        older = [f"... and {listing.older} older ones"] if listing.older else []
        blocks.append("\n".join([title, *(table if rows else ["  no backup here yet"]), *older]))
    return "\n\n".join(blocks)


def targets(environment: Environment, groups: Mapping[str, Sequence[str]], *, as_json: bool) -> str:
    """Return the targets of the environment, and the other environments of the inventory."""
    if as_json:
        named = {name: list(hosts) for name, hosts in groups.items()}
        found = [
            {
                "target": target.name,
                "database": target.database.name,
                "server": target.database.server,
                "filestore": str(target.filestore.path) if target.filestore else None,
                "store": show_store(target.store, target.customer),
            }
            for target in environment.targets
        ]
        return json.dumps({"environment": environment.name, "targets": found, "environments": named}, indent=2)
    rows = [
        (
            target.name,
            target.database.name,
            target.database.server,
            str(target.filestore.path) if target.filestore else "none",
            show_store(target.store, target.customer),
        )
        for target in environment.targets
    ]
    lines = [f"environment {environment.name} from {environment.origin}"]
    lines += _table(("TARGET", "DATABASE", "SERVER", "FILESTORE", "STORE"), rows)
    others = [f"  {name}: {', '.join(hosts)}" for name, hosts in groups.items() if name != environment.name]
    return "\n".join([*lines, *(["other environments:", *others] if others else [])])


def _row(entry: Entry) -> tuple[str, ...]:
    manifest = entry.sidecar.manifest if entry.sidecar else None
    return (
        entry.id,
        entry.taken.strftime(TIME) if entry.taken else "-",
        show_bytes(entry.bytes),
        "yes" if entry.is_verified else f"NO: {entry.problem}",
        manifest.environment if manifest else "-",
        manifest.kind if manifest else "-",
        manifest.target if manifest else "-",
    )


def _json(listing: StoreListing) -> dict[str, Any]:
    found = []
    for entry in listing.entries:
        manifest = entry.sidecar.manifest if entry.sidecar else None
        found.append(
            {
                "id": entry.id,
                "name": entry.name,
                "taken": entry.taken.isoformat() if entry.taken else None,
                "bytes": entry.bytes,
                "sha256": entry.sidecar.sha256 if entry.sidecar else None,
                "verified": entry.is_verified,
                "problem": entry.problem or None,
                "environment": manifest.environment if manifest else None,
                "target": manifest.target if manifest else None,
                "kind": manifest.kind if manifest else None,
                "alembic_revisions": list(manifest.alembic_revisions) if manifest else None,
            }
        )
    return {"target": listing.target, "location": listing.location, "older": listing.older, "backups": found}


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [heads, *rows]
    ]
