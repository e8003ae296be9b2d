"""Fills an empty database and its filestore with the sample data, in one transaction and at most once."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from . import filestore
from .documents import Document
from .sample import Row, draw_sample
from .settings import Settings, settings_from_arguments

_COLUMNS = {
    "res_partner": "id name email phone street zip city is_company comment create_date parent_id",
    "sale_order": "id name partner_id state date_order note amount_total",
    "sale_order_line": "id order_id sequence name quantity price_unit",
    "mail_message": "id model res_id message_type subject body email_from author_id date",
    "ir_attachment": "id name res_model res_id type store_fname checksum file_size mimetype",
    "ir_config_parameter": "key value",
    "ir_module_module": "name state latest_version",
}
_MODULES = (
    ("base", "installed", "17.0.1.3"),
    ("web", "installed", "17.0.1.0"),
    ("mail", "installed", "17.0.1.15"),
    ("contacts", "installed", "17.0.1.0"),
    ("sale", "installed", "17.0.1.2"),
    ("account", "installed", "17.0.1.2"),
    ("crm", "uninstalled", None),
    ("website", "uninstalled", None),
)
_ORPHANS = (b"An offer that was deleted with its order.\n", b"%PDF-1.4 a quotation that was printed twice\n")


def seed(settings: Settings) -> bool:
    """Write the sample data; return whether there was none yet."""
    with settings.connect(autocommit=False) as connection:
        # Two at once would both find the table empty.
        connection.execute("LOCK TABLE ir_config_parameter IN SHARE ROW EXCLUSIVE MODE")
        if connection.execute("SELECT 1 FROM ir_config_parameter LIMIT 1").fetchone():
            return False
        settings.filestore.mkdir(parents=True, exist_ok=True)
        sample = draw_sample()
        _copy(connection, "res_partner", sample.contacts)
        _copy(connection, "sale_order", sample.orders)
        _copy(connection, "sale_order_line", sample.lines)
        _copy(connection, "mail_message", sample.messages)
        # Files first, rows after: a row must never name a file that is not there.
        _copy(connection, "ir_attachment", _write_files(settings, sample.documents))
        _copy(connection, "ir_module_module", _MODULES)
        _copy(connection, "ir_config_parameter", _parameters(settings))
        for table, columns in _COLUMNS.items():
            if columns.startswith("id "):
                connection.execute(
                    sql.SQL("SELECT setval(pg_get_serial_sequence({}, 'id'), (SELECT max(id) FROM {}))").format(
                        sql.Literal(table), sql.Identifier(table)
                    )
                )
    for orphan in _ORPHANS:
        filestore.write_file(settings, orphan)
    return True


def _copy(connection: psycopg.Connection[Any], table: str, rows: Iterable[Row]) -> None:
    columns = sql.SQL(", ").join(sql.Identifier(name) for name in _COLUMNS[table].split())
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
    with connection.cursor().copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def _write_files(settings: Settings, documents: list[Document]) -> Iterable[Row]:
    for number, document in enumerate(documents, start=1):
        stored = filestore.write_file(settings, document.content)
        if number % 16:
            # The daily clean-up has looked at most of them since.
            (settings.filestore / "checklist" / stored).unlink(missing_ok=True)
        digest = stored.partition("/")[2]
        size = len(document.content)
        yield (number, document.name, "sale.order", document.order, "binary", stored, digest, size, document.mimetype)


def _parameters(settings: Settings) -> tuple[Row, ...]:
    """Return what Odoo writes when it makes a database; uuid and secret are this database's own."""
    return (
        ("database.uuid", str(uuid.uuid4())),
        ("database.secret", secrets.token_hex(32)),
        ("database.create_date", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"),
        ("web.base.url", f"http://{settings.http_interface}:{settings.http_port}"),
        ("mail.catchall.domain", "shop.example"),
    )


def main() -> None:
    """Seed the database of the odoo.conf that `-c` names."""
    print("seeded" if seed(settings_from_arguments("Fill the demo's database.")) else "there is data already")


if __name__ == "__main__":
    main()
