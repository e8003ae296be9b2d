"""pg_dump, pg_restore and psql as checked, streaming processes, from the server's own major version.

A pg_restore of a newer major sends settings that an older server does not know, and a pg_dump of an older one refuses
a newer server: so the clients are those of the server's major, found past Debian's wrapper in /usr/bin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from opsproof.errors import (
    CommandFailed,
    DumpError,
    HostError,
    LockTimeout,
    OpsproofError,
    PermissionDenied,
    ProgramMissing,
)
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.pipe import Pipe
from opsproof.system.hosts.tunnel import database_host
from opsproof.system.postgres.diagnosis import permission_hint
from opsproof.system.postgres.server import PINNED, SESSION
from opsproof.system.postgres.snapshot import Snapshot
from opsproof.target import DatabaseAddress

DEBIAN_BINDIR = "/usr/lib/postgresql/{major}/bin"
RHEL_BINDIR = "/usr/pgsql-{major}/bin"
VERSION = re.compile(r"\(PostgreSQL\) (\d+)(\S*)")
PROGRAMS = ("pg_dump", "pg_restore", "psql", "pg_dumpall")


@dataclass(frozen=True)
class ClientPrograms:
    """PostgreSQL's client programs of one version, in one folder; an empty `bindir` is the PATH."""

    bindir: str
    version: str

    def path(self, program: str) -> str:
        """Return what to run for a program's name."""
        return f"{self.bindir}/{program}" if self.bindir else program


def find_client_programs(host: Host, major: int, bindir: str | None = None) -> ClientPrograms:
    """Find the client programs of a server's major version on the host.

    Args:
        host: Where they run.
        major: The server's major version.
        bindir: The only folder to look in, where the inventory names one (`pg_bindir`).

    Raises:
        ProgramMissing: There are none, or only those of other versions, which are named.
    """
    folders = [bindir] if bindir else [DEBIAN_BINDIR.format(major=major), RHEL_BINDIR.format(major=major), ""]
    found = []
    for folder in folders:
        programs = ClientPrograms(folder, "")
        try:
            versions = [host.run(programs.path(name), "--version", timeout=20.0).stdout for name in PROGRAMS]
        except (ProgramMissing, CommandFailed):
            continue
        match = VERSION.search(versions[0])
        if match and int(match[1]) == major:
            return ClientPrograms(folder, match[1] + match[2])
        found.append(f"{versions[0].strip()} in {folder or 'PATH'}")
    looked = ", ".join(folder or "PATH" for folder in folders)
    raise ProgramMissing(
        f"pg_dump not found for PostgreSQL {major}",
        expected=f"pg_dump, pg_restore, psql and pg_dumpall of version {major}, the server's own",
        found="; ".join(found) or f"none in {looked}",
        kept="nothing was changed",
        hint=f"apt-get install postgresql-client-{major}, or set pg_bindir in the inventory",
    )


@dataclass(frozen=True)
class Clients:
    """The client programs, and the database that they work on as one role.

    Their host is another one's account where the server is to see that.
    """

    host: Host
    programs: ClientPrograms
    address: DatabaseAddress

    def __post_init__(self) -> None:
        if self.address.via is not None:
            object.__setattr__(self, "host", database_host(self.address))

    def dump(self, snapshot: str, lock_timeout: float) -> Pipe:
        """Start a `pg_dump` of a snapshot in the custom format, uncompressed: it is compressed once, by us.

        Args:
            snapshot: The id of an exported snapshot.
            lock_timeout: Seconds to wait for each table's lock.
        """
        return self.start(
            "pg_dump",
            "--format=custom",
            "--compress=0",
            f"--snapshot={snapshot}",
            f"--lock-wait-timeout={lock_timeout * 1000:.0f}",
            "--no-password",
            f"--dbname={self.conninfo()}",
        )

    def read_dump(self) -> Pipe:
        """Start a `pg_restore` that turns a dump, fed to it, into plain SQL: it reads the dump to its end."""
        return self.host.pipe(self.programs.path("pg_restore"), "--exit-on-error", "--file=-", feed=True)

    def print_tables(self, snapshot: Snapshot, lock_timeout: float) -> Pipe:
        r"""Start a `psql` that prints every table of a snapshot as COPY text, each followed by a line `\.`."""
        settings = {**SESSION, "lock_timeout": f"{lock_timeout * 1000:.0f}"}
        script = [b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"]
        script.append(f"SET TRANSACTION SNAPSHOT '{snapshot.id}';".encode())
        script += [f"SET LOCAL {name} = '{value}';".encode() for name, value in settings.items()]
        for table in snapshot.tables:
            script += [table.statement, rb"\echo '\\.'"]
        script.append(b"COMMIT;\n")
        return self.start(
            "psql",
            "--no-psqlrc",
            "--quiet",
            "--no-password",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
            f"--dbname={self.conninfo()}",
            stdin=b"\n".join(script),
            env={"PGCLIENTENCODING": snapshot.encoding},
        )

    def dump_roles(self) -> bytes:
        """Return the server's roles as SQL, without their passwords.

        Raises:
            DumpError: pg_dumpall failed, or did not write to the end.
        """
        arguments = ("--roles-only", "--no-role-passwords", "--no-password", f"--dbname={self.conninfo()}")
        program = self.programs.path("pg_dumpall")
        try:
            done = self.host.run(program, *arguments, env=self._environment(), timeout=300.0)
        except HostError as error:
            raise explain_dump_error(error, self.address) from error
        if "-- PostgreSQL database cluster dump complete" not in done.stdout:
            raise DumpError(
                "pg_dumpall did not print all roles",
                expected="a last line that says so",
                found=done.stdout[-300:].encode(errors="replace").decode(),
                kept="no backup was written",
                hint="run it again; look at the server's log if it happens twice",
            )
        return done.stdout.encode(errors="surrogateescape")

    def start(
        self, program: str, *arguments: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None
    ) -> Pipe:
        """Start one of the programs, with the password in its environment."""
        environment = {**self._environment(), **(env or {})}
        return self.host.pipe(self.programs.path(program), *arguments, env=environment, stdin=stdin)

    def conninfo(self, options: str = "") -> str:
        """Return the connection string, without the password; `options` are further settings of the session."""
        # As a connection string a name can neither be taken for an option nor for a connection string itself.
        pinned = " ".join(f"-c {name}={value}" for name, value in PINNED.items())
        return self.address.conninfo(options=pinned + options)

    def _environment(self) -> dict[str, str]:
        environment = {"PGCONNECT_TIMEOUT": "10", "PGAPPNAME": "opsproof"}
        if self.address.password is not None:
            environment["PGPASSWORD"] = self.address.password.reveal()
        return environment


def explain_dump_error(error: HostError, address: DatabaseAddress) -> OpsproofError:
    """Turn the last lines of a client program into an error that says what to do."""
    found = error.found
    kept = "no backup was written; the database was only read"
    # --lock-wait-timeout is a statement_timeout for the time of the LOCK TABLE.
    if any(words in found for words in ("lock timeout", "lock not available", "due to statement timeout")):
        return LockTimeout(
            f"A table of {address.name!r} is locked by somebody else",
            expected="every table can be read within lock_timeout",
            found=found,
            kept=kept,
            hint="SELECT * FROM pg_locks WHERE mode = 'AccessExclusiveLock'; end that session, or raise lock_timeout",
        )
    if "permission denied" in found or "user may lack SELECT privilege" in found:
        return PermissionDenied(
            f"Role {address.user!r} may not read all of {address.name!r}",
            expected="SELECT on every table and sequence",
            found=found,
            kept=kept,
            hint=permission_hint(address, found),
        )
    if "row-level security" in found:
        return PermissionDenied(
            f"Row-level security hides rows of {address.name!r} from role {address.user!r}",
            expected="a role that sees every row",
            found=found,
            kept=kept,
            hint=permission_hint(address, found),
        )
    return DumpError(
        f"{error.summary} while dumping {address.name!r}",
        expected="exit status 0",
        found=found,
        kept=kept,
        hint="look at the lines above and at the server's log, then run it again",
    )
