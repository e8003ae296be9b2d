"""A copy of an Odoo database, made harmless while it is still a side database that no application sees.

Proof comes before: afterwards the copy's rows differ from the backup's on purpose.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from opsproof.archive.catalogue.ownership import label_of, printable
from opsproof.archive.manifest import Manifest
from opsproof.errors import DatabaseError, ProofError
from opsproof.inspection.restores.neutralized import Identity, check_neutralized, read_columns, read_identity
from opsproof.neutralizing import (
    ALWAYS,
    BASE_URL,
    BUILT_IN,
    FROZEN_URL,
    IS_NEUTRALIZED,
    SECRET,
    UUID,
    Measure,
    sink,
)
from opsproof.odoo import PARAMETER_TABLE
from opsproof.procedures.restore.odoocommand import read_own_statements
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.server import Connection, connect, own_search_path
from opsproof.target import DatabaseAddress, Target

KEPT = "the live database is as it was"
BY_HAND = "correct it in the inventory, and run it again; --keep-identity leaves the database as the backup has it"


@dataclass(frozen=True)
class Purpose:
    """Whether what is restored is a copy, which is neutralized, or the environment's own; and why.

    Attributes:
        copies: Whether it is a copy.
        why: Half a sentence.
        guessed: Nobody knows it: what bears the `database.uuid` of the live database is no copy all the same.
        is_final: No option says otherwise.
    """

    copies: bool
    why: str
    guessed: bool = False
    is_final: bool = False


@dataclass(frozen=True)
class Neutralized:
    """What neutralizing came to: whose statements were run, and how many rows of each kind they changed.

    Without any (`done` is False) `why` says why nothing was done.
    """

    done: bool
    why: str
    by: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """Return it as one line."""
        if not self.done:
            return f"kept as the backup has it: {self.why}"
        counts = ", ".join(f"{what} {count:,}" for what, count in self.rows.items() if count)
        return f"neutralized by {self.by}, as {self.why}" + (f" ({counts})" if counts else "")


def decide(
    target: Target,
    system_identifier: str,
    manifest: Manifest | None,
    source: Target | None,
    *,
    keep_identity: bool,
) -> Purpose:
    """Tell whether a restore makes a copy. What nobody knows counts as one: mail that went out cannot be called back.

    Args:
        target: What is restored.
        system_identifier: The target's server's.
        manifest: What the backup says of itself; None where others made it.
        source: Whose backup it is, where `--from` said so.
        keep_identity: It was said to be a move.
    """
    if keep_identity:
        return Purpose(copies=False, why="--keep-identity says that it moves")
    own = (target.environment, target.name)
    if manifest is not None:
        if (manifest.environment, manifest.target, manifest.customer) != (*own, target.customer):
            other = manifest.customer != target.customer
            customer = f", customer {printable(manifest.customer) or 'none'}" if other else ""
            return Purpose(copies=True, why=f"the backup is one of {label_of(manifest)}{customer}")
        name, system = manifest.database.name, manifest.server.system_identifier
        if name != target.database.name and system != system_identifier:
            return Purpose(copies=True, why=f"the backup is one of {printable(name)!r} on another server")
        return Purpose(copies=False, why=f"the backup is one of {'/'.join(own)} itself")
    if source is not None and (source.environment, source.name) != own:
        return Purpose(copies=True, why=f"the backup is one of {source.environment}/{source.name}")
    if source is not None:
        return Purpose(copies=False, why=f"--from says that the backup is one of {'/'.join(own)} itself")
    return Purpose(copies=True, why="the backup does not say where it comes from", guessed=True)


class Neutralizing:
    """Makes one side database harmless, if it has to be.

    Args:
        target: What is restored.
        host: Where its Odoo is.
        purpose: Whether it has to be.
        live: Who the live database is, or was; None where there is none of Odoo's.
    """

    def __init__(self, target: Target, host: Host, purpose: Purpose, live: Identity | None) -> None:
        self.purpose = purpose
        self._target = target
        self._host = host
        self._live = live

    @property
    def plan(self) -> str:
        """Return what would be done, as a line of the plan."""
        purpose = self.purpose
        if not purpose.copies:
            return f"do not neutralize it: {purpose.why}"
        unless = " (unless it has the database.uuid of the live one)" if self._own_uuid else ""
        option = "" if purpose.is_final else "; --keep-identity leaves it as it is"
        return f"neutralize it before anybody sees it, as {purpose.why}{unless}{option}"

    def perform(self, side: DatabaseAddress) -> Neutralized:
        """Neutralize the side database in one transaction, and look at what that has done.

        Raises:
            HostError: The host's Odoo did not say what is to be done.
            DatabaseError: A statement failed.
            ProofError: Something of the database would still act.
        """
        if not self.purpose.copies:
            return Neutralized(done=False, why=self.purpose.why)
        with connect(side) as connection:
            before = read_identity(connection)
            connection.rollback()  # Odoo's own command may take a while
            if before is None:
                return self._neutralize_other(connection)
            if before.uuid and before.uuid == self._own_uuid:
                return Neutralized(done=False, why="it has the database.uuid of the live one")
            statements, why_not = read_own_statements(self._target, self._host, side.name, before.version)
            by = "Odoo's own statements" if statements else f"the built-in statements ({why_not})"
            with _one_transaction(connection):
                if statements:
                    with _telling("Odoo's own statements", "`odoo_bin: none` takes the built-in ones instead"):
                        _execute(connection, statements)
                rows = _take_measures(connection, ALWAYS if statements else (*ALWAYS, *BUILT_IN))
                _add_sink(connection)
                self._change_identity(connection)
                self._execute_further(connection)
        with connect(side) as connection:
            check_neutralized(connection, before)
        return Neutralized(True, self.purpose.why, by, rows)

    @property
    def _own_uuid(self) -> str:
        """Return what tells the live database's own backup from a copy; empty where nothing has to, or can."""
        # A copy that was neutralized by Odoo alone has the uuid of its original.
        live = self._live
        return live.uuid if self.purpose.guessed and live is not None and not live.is_neutralized else ""

    def _neutralize_other(self, connection: Connection) -> Neutralized:
        if not self._target.neutralize:
            return Neutralized(done=False, why="it is no Odoo database, and the inventory has no `neutralize` for it")
        with _one_transaction(connection):
            self._execute_further(connection)
        return Neutralized(True, self.purpose.why, "the inventory's statements")

    def _execute_further(self, connection: Connection) -> None:
        for number, statement in enumerate(self._target.neutralize, 1):
            # Not the statement itself: it may set a password.
            with _telling(f"Statement {number} of `neutralize` in the inventory", BY_HAND):
                _execute(connection, statement)

    def _change_identity(self, connection: Connection) -> None:
        url = self._target.web_base_url or (self._live.base_url if self._live else "")
        values = {IS_NEUTRALIZED: "true", UUID: str(uuid.uuid4()), SECRET: str(uuid.uuid4()), FROZEN_URL: "True"}
        if url:
            values[BASE_URL] = url
        table = sql.Identifier("public", PARAMETER_TABLE)
        for key, value in values.items():
            update = sql.SQL("UPDATE {} SET value = %s WHERE key = %s").format(table)
            if connection.execute(update, (value, key)).rowcount == 0:
                connection.execute(sql.SQL("INSERT INTO {} (key, value) VALUES (%s, %s)").format(table), (key, value))


def _take_measures(connection: Connection, measures: Iterable[Measure]) -> Counter[str]:
    """Do what the database has tables and columns for. Return how many rows of each kind were changed."""
    wanted = tuple(measures)
    known = read_columns(connection, [one.table for one in wanted])
    rows = Counter[str]()
    for measure in wanted:
        if {*measure.columns} <= known.get(measure.table, frozenset()):
            with _telling(f"Neutralizing the {measure.what or measure.table}", BY_HAND):
                rows[measure.what] += connection.execute(measure.sql.encode()).rowcount
    del rows[""]
    return rows


def _add_sink(connection: Connection) -> None:
    """Have one active mail server that leads nowhere, before Odoo takes the one of its odoo.conf."""
    table = "ir_mail_server"
    values = sink(read_columns(connection, [table]).get(table, frozenset()))
    if not values or connection.execute("SELECT FROM public.ir_mail_server WHERE active").fetchone():
        return
    query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier("public", table),
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(sql.Placeholder() for _ in values),
    )
    with _telling("Adding a mail server that leads nowhere", BY_HAND):
        connection.execute(query, tuple(values.values()))


def _execute(connection: Connection, statements: str) -> None:
    with own_search_path(connection):
        connection.execute(statements.encode())


@contextmanager
def _one_transaction(connection: Connection) -> Iterator[None]:
    """Make all of the block one transaction: all of it counts, or nothing does.

    Raises:
        ProofError: A statement of the block has ended the transaction.
    """
    query = "SELECT pg_catalog.pg_current_xact_id()::text"
    begun = connection.execute(query).fetchone()
    yield
    if connection.execute(query).fetchone() != begun:
        raise ProofError(
            "A statement has ended the transaction in which the copy is neutralized",
            expected="statements without BEGIN, COMMIT and ROLLBACK",
            found="another transaction at the end than at the beginning",
            kept=KEPT,
            hint=BY_HAND,
        )
    connection.commit()


@contextmanager
def _telling(what: str, hint: str) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.OperationalError:
        raise  # the connection itself, which others explain
    except psycopg.Error as error:
        # Not all of the message: it quotes the statement.
        found = error.diag.message_primary or type(error).__name__
        raise DatabaseError(f"{what}: the server refuses", found=found, kept=KEPT, hint=hint) from None
