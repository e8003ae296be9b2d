"""Loading a dump into a database: pg_restore and psql as checked processes that stop at the first error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from opsproof.errors import DumpError, HostError
from opsproof.system.hosts.pipe import Pipe
from opsproof.system.postgres.dump import Clients
from opsproof.system.postgres.dumpfile import DumpFile
from opsproof.system.postgres.schematext import Schema

# As pg_restore begins: every name in its statements has its schema.
PREAMBLE = "SET search_path = '';\n"
UNDECODED = re.compile("[\udc80-\udcff]")


def load_dump(clients: Clients, dump: Path, jobs: int, *, role: str = "", with_roles: bool = True) -> None:
    """Load a custom-format dump into the clients' database, which must be empty.

    Args:
        clients: PostgreSQL's programs; their address names the database.
        dump: The file, on the clients' host.
        jobs: Connections that load at once.
        role: Make everything as this role; for a dump that names no owners.
        with_roles: Do everything that names a role as the dump says it; else leave it out, for `assign_roles`.

    Raises:
        DumpError: pg_restore found an error, and stopped there.
    """
    options = ["--exit-on-error", "--no-password", f"--jobs={jobs}", f"--dbname={clients.conninfo()}"]
    if role:
        options += ["--no-owner", f"--role={role}"]
    listed = None
    if not with_roles:
        options += ["--no-owner", "--no-acl", "--use-list=/dev/stdin"]
        listed = DumpFile(dump, clients.programs, clients.host).list_without_roles()
    _run_to_end(clients.start("pg_restore", *options, str(dump), stdin=listed), "load the dump")


def load_sql(clients: Clients, path: Path, *, role: str = "") -> None:
    """Load a plain dump, in one transaction; the file has been looked through for what is not to be run.

    Args:
        clients: PostgreSQL's programs; their address names the database.
        path: The file, on the clients' host.
        role: Make everything as this role; for a dump that names no owners.

    Raises:
        DumpError: psql found an error, and nothing of it stayed.
    """
    options = f" -c role={_option(role)}" if role else ""
    arguments = ("--no-psqlrc", "--quiet", "--no-password", "--single-transaction", "--set=ON_ERROR_STOP=1")
    started = clients.start(
        "psql", *arguments, "--output=/dev/null", f"--file={path}", f"--dbname={clients.conninfo(options)}"
    )
    _run_to_end(started, "load the plain SQL")


def assign_roles(clients: Clients, schema: Schema, roles: Mapping[str, str]) -> None:
    """Do what `load_dump` left out, under other names: policies, user mappings, owners and grants.

    Args:
        clients: PostgreSQL's programs; their address names the database that the dump was loaded into.
        schema: The dump's.
        roles: The dump's role to the one that takes its place.

    Raises:
        DumpError: psql found an error, and nothing of it stayed.
    """
    blocks = schema.with_roles(roles).blocks
    # Whoever loaded the dump still owns it all, and may say all of this, until the owners are set.
    ordered = [one for one in blocks if one.needs_roles] + [one for one in blocks if not one.needs_roles]
    statements = [PREAMBLE, *(statement for block in ordered for statement in block.role_statements())]
    script = "\n".join(statements) + "\n"
    # psql would take it for text in the database's own encoding, which it is only where nobody could decode it.
    encoding = {} if UNDECODED.search(script) else {"PGCLIENTENCODING": "UTF8"}
    arguments = ("--no-psqlrc", "--quiet", "--no-password", "--single-transaction", "--set=ON_ERROR_STOP=1")
    started = clients.start(
        "psql",
        *arguments,
        "--file=-",
        f"--dbname={clients.conninfo()}",
        stdin=script.encode(errors="surrogateescape"),
        env=encoding,
    )
    _run_to_end(started, "set owners and grants")


def _run_to_end(pipe: Pipe, purpose: str) -> None:
    with pipe:
        while pipe.read():
            pass
        _finish(pipe, purpose)


def _finish(pipe: Pipe, purpose: str) -> None:
    try:
        pipe.finish()
    except HostError as error:
        raise DumpError(
            f"{error.summary}: it could not {purpose}",
            expected="exit status 0",
            found=error.found,
            kept="the live database is as it was",
            hint="look at the lines above and at the server's log, then run it again",
        ) from error


def _option(value: str) -> str:
    """Return a value inside libpq's `options`, where blanks and backslashes need one before them."""
    return re.sub(r"([\\\s])", r"\\\1", value)
