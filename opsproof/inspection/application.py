"""What an application needs to find once its database has changed: the files that its rows name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from opsproof.errors import ProofError
from opsproof.odoo import ATTACHMENT_COLUMN, ATTACHMENT_TABLE
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.server import Connection
from opsproof.target import FilestoreSettings

SHOWN = 10


def check_files_of(connection: Connection, host: Host, filestore: FilestoreSettings | None, *, kept: str = "") -> int:
    """Look whether every attachment that the database names is in the filestore. Return how many there are.

    Args:
        connection: To the database.
        host: Where its files are.
        filestore: Where its files are; None where it keeps none.
        kept: What an error says of what was left as it was.

    Raises:
        ProofError: More are missing than the inventory accepts.
    """
    if filestore is None or not filestore.content_addressed:
        return 0
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"public.{ATTACHMENT_TABLE}",)).fetchone()
    if row is None or not row[0]:
        return 0
    query = f"SELECT DISTINCT {ATTACHMENT_COLUMN} FROM public.{ATTACHMENT_TABLE} WHERE {ATTACHMENT_COLUMN} <> ''"  # noqa: S608
    names = [name for (name,) in connection.execute(query.encode())]
    missing = _missing(names, host, filestore.path)
    if len(missing) > filestore.accept_missing:
        raise ProofError(
            f"{len(missing):,} attachments are not in the filestore",
            expected=f"each of {len(names):,} files below {filestore.path}",
            found=", ".join(sorted(missing)[:SHOWN]) + (" ..." if len(missing) > SHOWN else ""),
            kept=kept,
            hint=f"check {filestore.origin}; for files lost long ago, set accept_missing_files: {len(missing)}",
        )
    return len(names)


def _missing(names: Sequence[str], host: Host, root: PurePosixPath) -> list[str]:
    if host.is_local:
        return [name for name in names if not Path(root, name).is_file()]
    script = '[ ! -e "$0" ] || exec find "$0" -xtype f -printf "%P\\\\0"'
    listed = host.run("sh", "-c", script, str(root), timeout=3600.0).stdout
    return sorted(set(names).difference(listed.split("\0")))
