"""Loading a dump into a database: pg_restore and psql as checked processes that stop at the first error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from opsproof.errors import DumpError, HostError
from opsproof.system.catalog import Schema
from opsproof.system.dump import Clients
from opsproof.system.pipe import Pipe

OWNER = re.compile(r"^ALTER [^\n]* OWNER TO [^\n]+;$", re.MULTILINE)
GRANTS = ("ACL", "DEFAULT ACL")
# As pg_restore begins: every name in its statements has its schema.
PREAMBLE = "SET search_path = '';\n"


def load_dump(clients: Clients, dump: Path, jobs: int, *, role: str = "", with_roles: bool = True) -> None:
    """Load a custom-format dump into the clients' database, which must be empty.

    Args:
        clients: PostgreSQL's programs; their address names the database.
        dump: The file, on the clients' host.
        jobs: Connections that load at once.
        role: Make everything as this role; for a dump that names no owners.
        with_roles: Set owners and grants as the dump says.

    Raises:
        DumpError: pg_restore found an error, and stopped there.
    """
    options = ["--exit-on-error", "--no-password", f"--jobs={jobs}", f"--dbname={clients.conninfo()}"]
    if role:
        options += ["--no-owner", f"--role={role}"]
    if not with_roles:
        options += ["--no-owner", "--no-acl"]
    _run_to_end(clients.start("pg_restore", *options, str(dump)), "load the dump")


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
    """Set the owners and grants that a dump's schema names, under other names.

    Args:
        clients: PostgreSQL's programs; their address names the database that the dump was loaded into.
        schema: The dump's.
        roles: The dump's role to the one that takes its place.

    Raises:
        DumpError: psql found an error, and nothing of it stayed.
    """
    statements = [PREAMBLE]
    for block in schema.with_roles(roles).blocks:
        statements += [block.body] if block.kind in GRANTS else OWNER.findall(block.body)
    script = "\n".join(statements) + "\n"
    arguments = ("--no-psqlrc", "--quiet", "--no-password", "--single-transaction", "--set=ON_ERROR_STOP=1")
    started = clients.start(
        "psql", *arguments, "--file=-", f"--dbname={clients.conninfo()}", stdin=script.encode(errors="surrogateescape")
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
