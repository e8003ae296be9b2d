"""Whether a backup has the rows of the tables that are to go: by the transactions that its snapshot could see.

A backup that is young enough may still be older than the table, or than its last rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from opsproof.archive.manifest import Manifest
from opsproof.errors import ProofError
from opsproof.procedures.cleanup.artifacts import Table
from opsproof.system.postgres.databases import oid_of
from opsproof.system.postgres.server import Connection, read_server
from opsproof.system.postgres.swap import rows_written_since


def require_covered(
    connection: Connection, database: str, manifest: Manifest, tables: Sequence[Table], hint: str
) -> None:
    """Make sure that every row of some tables was there, as it is, when a backup was taken.

    Rows of transactions that ran while the snapshot was opened count as newer: they may have ended too late for it.

    Args:
        connection: To the database, in which a lock may keep others from writing.
        database: Its name.
        manifest: The backup's.
        tables: What is to go.
        hint: What to type where one was not.

    Raises:
        ProofError: One was not, or nobody can tell.
        DatabaseError: So much has happened since that the server cannot tell any more.
    """
    seen = manifest.snapshot
    found = ""
    if seen is None:
        found = f"{manifest.id} does not say what its snapshot saw: an older opsproof has taken it"
    elif (manifest.server.system_identifier, seen.database_oid) != (
        read_server(connection).system_identifier,
        oid_of(connection, database),
    ):
        found = f"{manifest.id} was taken of another database than the one that is live now"
    else:
        newer = rows_written_since(connection, seen.oldest_unseen, [one.oid for one in tables])
        if newer:
            lines = (f"{name}: {rows:,} {'row' if rows == 1 else 'rows'}" for name, rows in newer.items())
            found = "\n".join([f"newer than {manifest.id}, the last:", *lines])
    if found:
        raise ProofError(
            f"No verified backup of {manifest.target} holds what would go from its database",
            expected="every row of the tables that would go in the last one",
            found=found,
            kept="everything",
            hint=hint,
        )
