"""What a benchmark runs on: a database, a filestore, and the inventory that names both."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.data import FULL_ROWS, fill_database, fill_filestore
from benchmarks.measure import MEGABYTE, size_of
from tests.lab.postgres_server import KINDS, PostgresServer

DATABASE = "bench"


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return a command line with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=FULL_ROWS, help="rows in the database")
    parser.add_argument("--files", type=int, default=1662, help="files in the filestore")
    parser.add_argument("--file-bytes", type=int, default=120_000, help="bytes of each")
    parser.add_argument("--runs", type=int, default=3, help="how often each way is run")
    parser.add_argument("--server", choices=KINDS, default="system", help="whose PostgreSQL")
    parser.add_argument("--folder", help="where everything is made (default: the temporary folder)")
    return parser


def prepare(server: PostgresServer, folder: Path, options: argparse.Namespace, **settings: Any) -> None:
    """Make the data and the inventory.

    Args:
        server: Where.
        folder: For the filestore and hosts.yml.
        options: Those of `parser_of`.
        settings: More settings of the target.
    """
    server.create_database(DATABASE)
    filestore = folder / "data" / "filestore" / DATABASE
    filestore.mkdir(parents=True)
    with server.connect(DATABASE) as connection:
        fill_database(connection, options.rows)
        fill_filestore(filestore, connection, options.files, options.file_bytes)
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    size = row[0] / MEGABYTE if row else 0
    print(f"database {size:.0f} MB, {options.files} files, {size_of(filestore) / MEGABYTE:.0f} MB", flush=True)
    (folder / "odoo.conf").write_text(
        f"[options]\ndb_host = {server.folder}\ndb_port = {server.port}\ndb_user = postgres\n"
        f"db_password = {server.password}\ndb_name = {DATABASE}\ndata_dir = {folder / 'data'}\n"
    )
    target = {
        "ansible_connection": "local",
        "dbname": DATABASE,
        "odoo_conf": str(folder / "odoo.conf"),
        "pg_bindir": str(server.bindir),
        "backup_dir": str(folder / "backups"),
        "customer": "bench",
        **settings,
    }
    (folder / "hosts.yml").write_text(json.dumps({"bench": {"hosts": {"app": target}}}))


def variables_of(server: PostgresServer) -> dict[str, str]:
    """Return what PostgreSQL's programs need to find the server."""
    return {
        "PGHOST": str(server.folder),
        "PGPORT": str(server.port),
        "PGUSER": "postgres",
        "PGPASSWORD": server.password,
    }
