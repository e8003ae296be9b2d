"""What a schema was when its database was at some revision before, as the newest verified backup of then has it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

from opsproof.archive.catalogue.choosing import choose_backup_at
from opsproof.archive.catalogue.fetching import fetch
from opsproof.archive.opening import open_backup
from opsproof.journal import Journal
from opsproof.procedures.restore.workspace import Workspace
from opsproof.system.hosts.farfolder import placed
from opsproof.system.postgres.dump import Clients
from opsproof.system.postgres.dumpfile import DumpFile, read_plain_schema
from opsproof.system.postgres.schematext import Schema
from opsproof.system.store import Store
from opsproof.target import Target

# What plain SQL has under headings like those of a schema.
DATA_KINDS = frozenset({"BLOBS", "MATERIALIZED VIEW DATA", "SEQUENCE SET", "STATISTICS DATA", "TABLE DATA"})


@dataclass(frozen=True)
class Precedent:
    """A backup, and the schema that is in it."""

    backup: str
    schema: Schema


def find_precedent(
    target: Target, store: Store, clients: Clients, heads: Sequence[str], major: int, journal: Journal
) -> Precedent | None:
    """Return the schema in the newest verified backup of a target that was at these heads; None where there is none.

    Args:
        target: Whose.
        store: Where its backups are.
        clients: PostgreSQL's programs, which read the dump.
        heads: Alembic's.
        major: The server's major version: another one prints a schema in other words.
        journal: What happened.

    Raises:
        StoreError: The store, or the backup, cannot be read.
        ArchiveError: The backup is not what its manifest says.
        DumpError: Its dump cannot be read.
    """
    # A backup without revisions may be one at base, or one whose revisions stand in a table of another name.
    choice = choose_backup_at(target, store, heads, major) if heads else None
    if choice is None:
        return None
    with ExitStack() as stack:
        workspace = stack.enter_context(closing(Workspace()))
        with journal.phase("precedent"):
            dump = workspace.path / "database"
            path = fetch(choice, workspace.path, journal, target.policies.sealing)
            backup = stack.enter_context(closing(open_backup(path, choice.sidecar, dump)))
            schema: Schema | None
            if backup.database_format == "custom":
                there = stack.enter_context(placed(clients.host, dump))
                schema = DumpFile(there, clients.programs, clients.host).schema
            else:
                schema = read_plain_schema(dump)
    if schema is None:
        return None
    blocks = tuple(block for block in schema.blocks if block.kind not in DATA_KINDS)
    return Precedent(choice.id, replace(schema, blocks=blocks))
