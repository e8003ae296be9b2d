"""A restore that is about to fail: an application whose load can be held midway, and what must be true afterwards."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from psycopg import sql

from opsproof.intent import MARK
from tests.lab import moody
from tests.lab.action_run import REPOSITORY, ActionRun, Begun
from tests.lab.application import file_contents, table_contents
from tests.lab.postgres_server import PostgresServer, Session
from tests.lab.restored import ENVIRONMENT, RECOVER, RESTORE, TARGET, Restorable, restorable
from tests.lab.supervised import SERVICE, SLOW_TO_TRUST, Supervised, supervised
from tests.lab.waiting import await_true

PLUGINS = {"pause": "tests.lab.pause", "hail": "tests.lab.hail"}
# Loading a row of this table into a side database waits for as long as a role of a certain name exists.
GATE = """
CREATE FUNCTION public.gate_open(int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    WHILE pg_catalog.current_database() LIKE '%\\_\\_side\\_%'
        AND EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}') LOOP
        PERFORM pg_catalog.pg_sleep(0.02);
    END LOOP;
    RETURN true;
END $$;
CREATE TABLE public.gate (x int CHECK (public.gate_open(x)));
INSERT INTO public.gate VALUES (1);
"""


@dataclass(frozen=True)
class State:
    """All of an application that a restore which fails must leave alone.

    Attributes:
        oid: Which database has the live name.
        properties: Whether it takes connections and is a template; its connection limit, owner, grants and comment.
        contents: Every table.
        databases: The live one and those that restores made of it.
    """

    oid: int
    properties: tuple[Any, ...]
    contents: Mapping[str, tuple[int, str]]
    databases: frozenset[str]


class Patient:
    """An application, its backup, and a service that can take offence at the restored data.

    Args:
        own: The application with its backup, which is older than what is live.
        service: What runs on it.
        gate: The role that holds a load midway.
    """

    def __init__(self, own: Restorable, service: Supervised, gate: str) -> None:
        self.own = own
        self.service = service
        self._gate = gate

    @property
    def name(self) -> str:
        """The live database's name."""
        return self.own.name

    @property
    def server(self) -> PostgresServer:
        """Where it is."""
        return self.own.server

    def read(self, member: str) -> bytes:
        """Return a member of the backup's bundle."""
        with ZipFile(self.own.project.store / self.own.backup.name) as bundle:
            return bundle.read(member)

    def describe(self, **variables: object) -> None:
        """Write the inventory, with more variables than it has."""
        known = {**self.own.variables, **variables}
        self.own.project.write_inventory({ENVIRONMENT: {TARGET: known}})

    def feel(self, mood: str) -> None:
        """Tell the service what to take offence at; `tests.lab.moody` lists it."""
        (self.service.conf.parent / "mood").write_text(mood)

    def is_running(self) -> bool:
        """Tell whether the service runs, as its manager sees it."""
        return "RUNNING" in self.service.control("status", SERVICE)

    @contextmanager
    def closed_gate(self) -> Iterator[Callable[[], None]]:
        """Hold every load midway, until what this yields is called, or the block ends."""
        role = sql.Identifier(self._gate)

        def open_gate() -> None:
            with self.server.connect() as connection:
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))

        with self.server.connect() as connection:
            connection.execute(sql.SQL("CREATE ROLE {}").format(role))
        try:
            yield open_gate
        finally:
            open_gate()

    def loaders(self) -> list[int]:
        """Return the server's processes that wait at the gate."""
        return self.query_server(
            "SELECT pid FROM pg_stat_activity WHERE starts_with(datname, %s) AND wait_event = 'PgSleep'",
            f"{self.name}__side_",
        )

    def swappers(self) -> list[int]:
        """Return the server's processes of a run that wait for somebody else's lock."""
        return self.query_server(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'opsproof' AND wait_event_type = 'Lock'"
        )

    def terminate(self, pids: list[int]) -> None:
        """End processes of the server, and wait until they are gone."""
        assert pids
        for pid in pids:
            self.query_server("SELECT pg_terminate_backend(%s, 5000)", pid)

    def query_server(self, query: str, *values: object) -> list[Any]:
        """Return the first column of a query, which is not said in the live database."""
        with self.server.connect() as connection:
            return [row[0] for row in connection.execute(query.encode(), values).fetchall()]

    @contextmanager
    def held_comments(self) -> Iterator[Session]:
        """Let nobody change a database's comment, where intents stand; ends with the connection that this yields."""
        with self.server.connect() as connection:
            connection.execute("BEGIN; LOCK TABLE pg_catalog.pg_shdescription IN SHARE MODE")
            yield connection

    def begin_restore(self, *arguments: str, **how: Any) -> Any:
        """Begin `actions/test_restore.py`; arguments as `Project.begin` has them."""
        return self.own.project.begin(*arguments, **{"action": RESTORE, "env": ENVIRONMENT, **how})

    def begin_recover(self, *arguments: str, **how: Any) -> Any:
        """Begin `actions/test_recover.py`; arguments as `Project.begin` has them."""
        return self.own.project.begin(*arguments, **{"action": RECOVER, "env": ENVIRONMENT, **how})

    def pausing(self, step: str) -> tuple[list[str], dict[str, str], Path]:
        """Return what makes a run wait after a step: arguments, variables, and the folder of `reached` and `go`."""
        folder = self.own.project.folder / f"pause-{secrets.token_hex(4)}"
        folder.mkdir()
        variables = {"PYTHONPATH": str(REPOSITORY), "PAUSE_AFTER": step, "PAUSE_FOLDER": str(folder)}
        return ["-p", PLUGINS["pause"]], variables, folder

    def kill(self, begun: Begun) -> None:
        """Kill a run as nobody can prepare for; a pg_restore of it goes on until its database is dropped."""
        begun.process.kill()
        begun.process.wait()

    def look(self) -> State:
        """Return the state as it is."""
        with self.server.connect() as connection:
            row = connection.execute(
                "SELECT oid::bigint, datallowconn, datistemplate, datconnlimit, datdba, datacl::text,"
                " shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s",
                (self.name,),
            ).fetchone()
        assert row is not None, "there is no live database"
        with self.own.application.connect() as connection:
            contents = table_contents(connection)
        return State(row[0], row[1:], contents, frozenset(self.own.databases()))

    def require_old(self, before: State, *, same_database: bool = True) -> None:
        """Check that everything is as it was, works, and that nothing of the run is left.

        Args:
            before: What `look` returned.
            same_database: Whether the database is the very same, and not only its content; never so in place.
        """
        now = self.look()
        assert now.contents == before.contents
        assert (now.properties, now.databases) == (before.properties, before.databases)
        assert (now.oid == before.oid) == same_database
        for (path,) in self.own.query("SELECT store_fname FROM ir_attachment WHERE store_fname <> ''"):
            assert (self.own.application.filestore / path).read_bytes()
        assert self.is_running()
        await_true(self.service.is_healthy, "the service does not answer")
        self.require_nothing_left()

    def require_nothing_left(self) -> None:
        """Check that there are no temporary files, processes, sessions or intents."""
        own = self.own
        await_true(lambda: own.project.litter() == [], "the run has left something")
        assert not own.application.frozen.exists()
        assert not list(own.application.filestore.rglob("*opsproof*"))
        sessions = "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^opsproof'"
        await_true(lambda: self.query_server(sessions) == [], "a session of the run is left")
        query = "SELECT datname FROM pg_database WHERE starts_with(shobj_description(oid, 'pg_database'), %s)"
        assert self.query_server(query, MARK) == []
        assert [name for name in own.project.stored() if ".part-" in name] == []


@contextmanager
def running_patient(server: PostgresServer, *statements: str, **variables: object) -> Iterator[Patient]:
    """Make an application with a backup, and change it after that; all is gone after the block.

    Args:
        server: Where.
        statements: More of what is in it when it is backed up.
        variables: More of the inventory.
    """
    token = secrets.token_hex(4)
    with restorable(server) as own, supervised(own.application, moody.__file__, **SLOW_TO_TRUST) as service:
        known = {**own.variables, **service.variables, "health_timeout": 3, **variables}
        own = replace(own, variables=known, service=service)
        own.project.write_inventory({ENVIRONMENT: {TARGET: known}})
        own.execute(GATE.format(role=f"gate_{token}"), *statements)
        own = replace(own, backup=own.take_backup(), files=file_contents(own.application.filestore))
        own.execute(
            "INSERT INTO public.ir_config_parameter (key, value) VALUES ('generation', 'live')",
            "DELETE FROM public.mail_message WHERE id % 2 = 0",
            "UPDATE public.res_partner SET name = 'changed since' WHERE id = 7",
        )
        with own.application.connect() as connection:
            own.application.attach(connection, b"added since the backup")
            gone = own.application.attachments()[0]
            connection.execute("DELETE FROM public.ir_attachment WHERE checksum = %s", (gone.name,))
            gone.unlink()
        yield Patient(own, service, f"gate_{token}")


def recover(patient: Patient) -> ActionRun:
    """Run `actions/test_recover.py`, which must succeed."""
    run = patient.own.project.run(action=RECOVER, env=ENVIRONMENT)
    assert run.status == 0, run.output
    return run


@contextmanager
def small_disk(server: PostgresServer, megabytes: int) -> Iterator[Path]:
    """Mount a small disk of its own for a server, as root; it is gone after the block."""
    account = (server.folder / "data").stat()
    disk = server.folder / f"disk-{secrets.token_hex(4)}"
    disk.mkdir()
    options = f"size={megabytes}m,uid={account.st_uid},gid={account.st_gid},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True, timeout=30)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True, timeout=30)


def fill(disk: Path) -> Path:
    """Fill a disk to its last byte; return the file that does."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"\0" * 65536):
            pass
    return filler
