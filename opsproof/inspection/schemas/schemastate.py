"""How far a database was migrated, as one short text: it changes when revisions are applied, or modules updated."""

from __future__ import annotations

from hashlib import sha256

from opsproof.odoo import MODULE_TABLE
from opsproof.system.alembic.migrations import VersionTable, read_heads
from opsproof.system.postgres.server import Connection, own_search_path

DIGITS = 16
# Alembic's tables, in whatever schema and of whatever name an env.py has them: of one column, which is called so.
_VERSION_TABLES = """
SELECT nspname::text, relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'r' AND relpersistence <> 't' AND has_table_privilege(c.oid, 'SELECT')
AND (SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
    = ARRAY['version_num'] ORDER BY 1, 2
"""


def state_of(connection: Connection) -> str:
    """Return a digest of Alembic's heads, and of the versions of Odoo's installed modules; no row of others is read."""
    tables = [VersionTable(name, schema) for schema, name in connection.execute(_VERSION_TABLES).fetchall()]
    found: list[object] = [(one, read_heads(connection, one)) for one in tables]
    with own_search_path(connection):
        row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (MODULE_TABLE,)).fetchone()
        if row is not None and row[0]:
            query = "SELECT name, latest_version FROM ir_module_module WHERE state = 'installed' ORDER BY 1"
            found += connection.execute(query).fetchall()
    return sha256(repr(found).encode()).hexdigest()[:DIGITS]
