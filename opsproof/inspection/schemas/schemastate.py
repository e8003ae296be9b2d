"""How far a database was migrated, as one short text: it changes when revisions are applied, or modules updated."""

from __future__ import annotations

from hashlib import sha256

from opsproof.odoo import MODULE_TABLE
from opsproof.system.alembic.migrations import VersionTable, read_heads
from opsproof.system.postgres.server import Connection, own_search_path

DIGITS = 16


def state_of(connection: Connection) -> str:
    """Return a digest of Alembic's heads, and of the versions of Odoo's installed modules; no row of others is read."""
    found: list[object] = [read_heads(connection, VersionTable())]
    with own_search_path(connection):
        row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (MODULE_TABLE,)).fetchone()
        if row is not None and row[0]:
            query = "SELECT name, latest_version FROM ir_module_module WHERE state = 'installed' ORDER BY 1"
            found += connection.execute(query).fetchall()
    return sha256(repr(found).encode()).hexdigest()[:DIGITS]
