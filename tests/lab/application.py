"""An Odoo-shaped application of a test's own: a database with a role that owns it, and a filestore by SHA-1."""

from __future__ import annotations

import hashlib
import random
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from opsproof.target import DatabaseAddress
from tests.lab.background import Background
from tests.lab.postgres_server import PostgresServer, Session

# Every character that a URL, a shell, JSON, a format string or an INI file could trip over.
AWKWARD = "p@ss/w:rd%&é?#$'=\\ +"

SCHEMA = """
CREATE TABLE res_partner (id serial PRIMARY KEY, name text NOT NULL, email text, created timestamptz DEFAULT now(),
    balance numeric(12, 2), shares double precision, tags text[], extra jsonb, photo bytea,
    label text GENERATED ALWAYS AS (name || ' <' || coalesce(email, '') || '>') STORED);
CREATE TABLE ir_attachment (id serial PRIMARY KEY, name text, store_fname text, checksum text, file_size bigint,
    db_datas bytea);
CREATE TABLE ir_module_module (id serial PRIMARY KEY, name text, state text, latest_version text);
CREATE TABLE ir_config_parameter (id serial PRIMARY KEY, key text UNIQUE, value text);
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
CREATE TABLE mail_message (id bigserial PRIMARY KEY, partner_id int REFERENCES res_partner, body text);
CREATE TABLE "Weird; ""Table"" %s" ("x" int, "select" text, t text);
CREATE TABLE nothing ();
CREATE TABLE account_move (id bigint GENERATED ALWAYS AS IDENTITY, day date NOT NULL, amount numeric)
    PARTITION BY RANGE (day);
CREATE TABLE account_move_2025 PARTITION OF account_move FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE account_move_rest PARTITION OF account_move DEFAULT;
CREATE VIEW partner_names AS SELECT id, name FROM res_partner;
CREATE INDEX ON mail_message (partner_id);
CREATE SEQUENCE never_used;
INSERT INTO ir_module_module (name, state, latest_version) VALUES ('base', 'installed', '14.0.1.3'),
    ('sale', 'installed', '14.0.1.1'), ('stock', 'uninstalled', NULL);
INSERT INTO ir_config_parameter (key, value) VALUES ('database.uuid', gen_random_uuid()::text);
INSERT INTO alembic_version VALUES ('c0ffee123456');
INSERT INTO res_partner (name, email, balance, shares, tags, extra, photo)
    SELECT E'Tab\t, line\n, \\\\. ' || i, 'user' || i || '@example.org', i / 7.0, i / 3.0::float8,
           ARRAY['a"b', NULL, 'ü' || i], jsonb_build_object('n', i, 'text', E'é\n'), sha256(i::text::bytea)
      FROM generate_series(1, 500) i;
INSERT INTO "Weird; ""Table"" %s" VALUES (1, 'one', NULL), (2, NULL, '\\.');
INSERT INTO account_move (day, amount) SELECT date '2024-12-01' + i, i * 1.5 FROM generate_series(1, 500) i;
INSERT INTO mail_message (partner_id, body) SELECT 1 + i % 500, repeat(md5(i::text), 6) FROM generate_series(1, 4000) i;
SELECT lo_from_bytea(0, decode(repeat('00ff41', 5000), 'hex'));
SELECT setval('res_partner_id_seq', 900);
"""


@dataclass(frozen=True)
class Application:
    """A database, the role that owns it, and where its attachments are.

    Attributes:
        data_dir: Odoo's; the files are in `filestore/{name}` below it.
    """

    server: PostgresServer
    name: str
    role: str
    password: str
    data_dir: Path

    @property
    def address(self) -> DatabaseAddress:
        """Where the database is, as its owner."""
        return self.server.address(self.name, self.role, self.password)

    @property
    def filestore(self) -> Path:
        """The folder of its attachments."""
        return self.data_dir / "filestore" / self.name

    @property
    def frozen(self) -> Path:
        """Where a backup freezes the files."""
        return self.filestore.parent / f".{self.name}.opsproof-frozen"

    @property
    def odoo_conf(self) -> Path:
        """Its odoo.conf."""
        return self.data_dir / "odoo.conf"

    def connect(self) -> Session:
        """Connect as the superuser, in autocommit mode."""
        return self.server.connect(self.name)

    def attach(self, connection: Session, content: bytes) -> Path:
        """Add an attachment as Odoo does: the file first, then the row that names it."""
        digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        path = self.filestore / digest[:2] / digest
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        connection.execute(
            "INSERT INTO public.ir_attachment (name, store_fname, checksum, file_size) VALUES (%s, %s, %s, %s)",
            (f"document {digest[:6]}", f"{digest[:2]}/{digest}", digest, len(content)),
        )
        return path

    def require_no_session(self) -> None:
        """Check that no run has a session in the database, or none any more soon."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'opsproof'"
        deadline = time.monotonic() + 5
        with self.server.connect() as connection:
            # The server notices a client that is gone only when it next turns to it.
            while connection.execute(query, (self.name,)).fetchone() != (0,):
                assert time.monotonic() < deadline, "a session is left"
                time.sleep(0.05)

    def attachments(self) -> list[Path]:
        """Return the files of the filestore, clean-up markers left out, sorted."""
        return sorted(path for path in self.filestore.glob("??/*") if path.is_file())


@contextmanager
def running_application(
    server: PostgresServer, folder: Path, *, attachments: int = 40, name: str = ""
) -> Iterator[Application]:
    """Make an application on a server; database, role and files are gone after the block.

    Args:
        server: Where.
        folder: Where its odoo.conf and its files go.
        attachments: How many files, of up to some 200 kB.
        name: The database's; its own by default.
    """
    token = secrets.token_hex(4)
    application = Application(server, name or f"shop_{token}", f"Odoo {token}", AWKWARD + token, folder / "odoo")
    role = sql.Identifier(application.role)
    with server.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, application.password))
    try:
        server.create_database(application.name, owner=application.role)
        _fill(application, attachments)
        yield application
    finally:
        server.drop_database(application.name)
        with server.connect() as connection:
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))


def _fill(application: Application, attachments: int) -> None:
    application.filestore.mkdir(parents=True)
    (application.filestore / "checklist").mkdir()
    (application.filestore / "checklist" / "marker").touch()
    address = application.address
    (application.data_dir / "odoo.conf").write_text(
        f"[options]\ndb_host = {address.host}\ndb_port = {address.port}\ndb_user = {application.role}\n"
        f"db_password = {application.password}\ndb_name = {application.name}\ndata_dir = {application.data_dir}\n"
    )
    dice = random.Random(7)
    with application.server.connect(application.name, application.role, application.password) as connection:
        connection.execute(SCHEMA.encode())
        database = sql.Identifier(application.name)
        connection.execute(sql.SQL("ALTER DATABASE {} SET work_mem = '5MB'").format(database))
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS 'the shop''s'").format(database))
        with connection.transaction():
            for number in range(attachments):
                text = f"attachment {number} of {application.name}\n".encode()
                body = dice.randbytes(dice.randrange(200_000)) if number % 2 else text * dice.randrange(1, 3000)
                application.attach(connection, text + body)
    # Odoo keeps a few files that no row names, until its clean-up comes by.
    orphan = b"an orphan"
    digest = hashlib.sha1(orphan, usedforsecurity=False).hexdigest()
    (application.filestore / digest[:2]).mkdir(exist_ok=True)
    (application.filestore / digest[:2] / digest).write_bytes(orphan)


def table_contents(connection: Session) -> dict[str, tuple[int, str]]:
    """Return rows and a SHA-256 over the sorted rows of every table, and of every large object.

    It is written without a line of the engine, whose own counts it is to check.
    """
    connection.execute("SET timezone = 'UTC'")
    names = connection.execute(
        "SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"
    ).fetchall()
    contents = {}
    for schema, table in names:
        query = sql.SQL("SELECT (row_.*)::text FROM ONLY {} AS row_").format(sql.Identifier(schema, table))
        rows = sorted(row[0] for row in connection.execute(query))
        contents[f"{schema}.{table}"] = (len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest())
    objects = connection.execute("SELECT oid::text, lo_get(oid) FROM pg_largeobject_metadata").fetchall()
    contents |= {f"object {oid}": (len(data), hashlib.sha256(data).hexdigest()) for oid, data in objects}
    return contents


def file_contents(folder: Path) -> Mapping[str, str]:
    """Return the SHA-256 of every file below a folder by its relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Writer(Background):
    """Keeps adding rows and attachments, and removing some, for as long as the block lasts."""

    pause = 0.003

    def __init__(self, application: Application) -> None:
        super().__init__()
        self.written = 0
        self._application = application

    def work(self) -> None:
        """Write again and again."""
        with self._application.connect() as connection:
            connection.execute("SET search_path = public")
            mine: list[Path] = []
            while not self.is_over():
                self.written += 1
                mine.append(self._application.attach(connection, secrets.token_bytes(2000)))
                connection.execute(
                    "INSERT INTO mail_message (partner_id, body) VALUES (1, %s)", (f"message {self.written}",)
                )
                if self.written % 3 == 0:
                    # As Odoo's clean-up does: the row first, then the file that nobody names any more.
                    path = mine.pop(0)
                    connection.execute("DELETE FROM ir_attachment WHERE checksum = %s", (path.name,))
                    path.unlink()
