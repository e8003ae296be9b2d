"""The demo's supervisor: its configuration, starting it, and what is asked of it over its private socket."""

from __future__ import annotations

import http.client
import os
import shlex
import socket
import subprocess
import sys
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import opsproof
from opsproof.demo.cluster import server_command
from opsproof.demo.folder import DemoFolder, write_private
from opsproof.demo.state import State
from opsproof.errors import HostError

PROGRAMS = ("postgres", "s3", "application", "writer")
BY_CALLER = "autostart = false"

_RPC_SECONDS = 40.0
_START_SECONDS = 30.0
_RUNNING = frozenset({"RUNNING", "STARTING"})
_ALREADY_STARTED = 60
_NOT_RUNNING = 70


@dataclass(frozen=True)
class Program:
    """One supervised program as supervisor is told it.

    `priority` orders the stop: the highest goes first. `folder` is where it is started. `user` is empty where it is
    supervisor's own.
    """

    name: str
    command: list[str]
    priority: int
    folder: Path
    user: str = ""
    stop_signal: str = "TERM"


class Supervisor:
    """The running supervisor of one demo."""

    def __init__(self, state: State) -> None:
        self._socket = state.supervisor_socket

    def states(self) -> dict[str, str] | None:
        """Return every program's state (`RUNNING`, `STOPPED`, `FATAL`, ...), or None where nobody supervises."""
        try:
            with self._proxy() as proxy:
                told: Any = proxy.supervisor.getAllProcessInfo()
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return None
        return {one["name"]: one["statename"] for one in told}

    def start(self, program: str) -> None:
        """Start a program, unless it runs; does not wait for it.

        Raises:
            HostError: Supervisor could not start it.
        """
        self._ask("startProcess", program, accept=_ALREADY_STARTED)

    def stop(self, program: str) -> None:
        """Stop a program and wait until it is gone.

        Raises:
            HostError: Supervisor could not stop it.
        """
        self._ask("stopProcess", program, accept=_NOT_RUNNING)

    def read_again(self) -> None:
        """Have supervisor read its configuration; nothing is started, stopped or restarted by that.

        Raises:
            HostError: Supervisor does not answer, or refuses it.
        """
        try:
            with self._proxy() as proxy:
                proxy.supervisor.reloadConfig()
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise self._silent(error) from error

    def shutdown(self) -> bool:
        """Ask supervisor to stop everything and itself; return whether it heard."""
        try:
            with self._proxy() as proxy:
                proxy.supervisor.shutdown()
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return False
        return True

    def _ask(self, method: str, program: str, *, accept: int) -> None:
        wait = method == "stopProcess"
        try:
            with self._proxy() as proxy:
                getattr(proxy.supervisor, method)(program, wait)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != accept:
                raise HostError(
                    f"supervisor could not {method.removesuffix('Process')} the demo's {program}",
                    found=fault.faultString,
                    hint="python -m opsproof.demo stop && python -m opsproof.demo start",
                ) from fault
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise self._silent(error) from error

    def _silent(self, error: Exception) -> HostError:
        return HostError(
            "the demo's supervisor does not answer",
            found=f"{self._socket}: {error}",
            hint="python -m opsproof.demo stop && python -m opsproof.demo start",
        )

    def _proxy(self) -> xmlrpc.client.ServerProxy:
        return xmlrpc.client.ServerProxy("http://supervisor", transport=_SocketTransport(self._socket))


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, with a timeout."""

    def __init__(self, path: Path) -> None:
        super().__init__("supervisor", timeout=_RPC_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _SocketTransport(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket; one connection per call."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002 - the path says where
        return _SocketConnection(self._path)


def is_running(state: str | None) -> bool:
    """Tell whether a program in this state runs, or is on its way."""
    return state in _RUNNING


def start_supervisor(folder: DemoFolder, state: State) -> None:
    """Write supervisor's configuration and start it, with no program started yet.

    Raises:
        HostError: It did not start.
    """
    write_private(folder.supervisor_conf, _configuration(folder, state))
    # A socket of one that was killed: nobody listens there, which the caller has made sure of.
    state.supervisor_socket.unlink(missing_ok=True)
    log = folder.logs / "supervisor.start"
    # To a file, not to a pipe: the daemon keeps what it inherits open, and a pipe's reader would wait for it.
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(folder.supervisor_conf)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=_START_SECONDS,
            check=False,
            cwd=folder.path,
            env=minimal_environment(folder),
        )
    if done.returncode != 0:
        raise HostError(
            "the demo's supervisor did not start",
            expected="exit status 0",
            found=f"exit status {done.returncode}\n" + tail(log),
            kept="nothing runs",
            hint="python -m opsproof.demo start",
        )


def runs_a_release(folder: DemoFolder) -> bool:
    """Tell whether supervisor was told to start the application in the release that is live."""
    return folder.supervisor_conf.is_file() and str(folder.current) in folder.supervisor_conf.read_text()


def enable_programs(folder: DemoFolder, state: State) -> None:
    """Write down that all programs start with supervisor, now that they run: `checks/test_service.py` asks for that.

    Raises:
        HostError: Supervisor does not answer.
    """
    written = folder.supervisor_conf.read_text() if folder.supervisor_conf.exists() else ""
    if BY_CALLER in written:
        write_private(folder.supervisor_conf, written.replace(BY_CALLER, "autostart = true"))
        Supervisor(state).read_again()


def minimal_environment(folder: DemoFolder) -> dict[str, str]:
    """Return the environment of the demo's programs: nothing of the caller's that could be a secret or mislead."""
    root = str(Path(opsproof.__file__).parent.parent)
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
        "HOME": str(folder.path),
        "LANG": "C.UTF-8",
        "PYTHONPATH": root,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def tail(log: Path, lines: int = 6) -> str:
    """Return a log's last lines, for an error to carry."""
    try:
        return "\n".join(log.read_text(errors="replace").strip().splitlines()[-lines:]) or f"{log} is empty"
    except OSError:
        return f"{log} was not written"


def programs(folder: DemoFolder, state: State) -> list[Program]:
    """Return the demo's programs in the order in which they start."""
    python = [sys.executable, "-m"]
    server_user = "" if state.server_ids()[0] == os.geteuid() else state.server_user
    return [
        Program("postgres", server_command(folder, state), 10, folder.path, server_user, stop_signal="INT"),
        Program("s3", [*python, "moto.server", "-H", "127.0.0.1", "-p", str(state.s3_port)], 20, folder.path),
        # At each start in the release that is live then, of which `-m` takes its modules.
        Program("application", [*python, "shop.server", "-c", str(folder.odoo_conf)], 30, folder.current),
        Program("writer", [*python, "opsproof.demo.writer", "--url", state.application_url], 40, folder.path),
    ]


def _configuration(folder: DemoFolder, state: State) -> str:
    """Return supervisord.conf."""
    owner = ["user = root"] if os.geteuid() == 0 else []
    sections = {
        "unix_http_server": [f"file = {_value(str(state.supervisor_socket))}", "chmod = 0700"],
        "supervisord": [
            f"logfile = {_value(str(folder.logs / 'supervisor.log'))}",
            f"pidfile = {_value(str(folder.path / 'supervisord.pid'))}",
            f"childlogdir = {_value(str(folder.logs))}",
            f"directory = {_value(str(folder.path))}",
            "logfile_maxbytes = 1MB",
            "logfile_backups = 1",
            "umask = 077",
            *owner,
        ],
        "rpcinterface:supervisor": ["supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface"],
        "supervisorctl": [f"serverurl = {_value('unix://' + str(state.supervisor_socket))}"],
    }
    for program in programs(folder, state):
        sections[f"program:{program.name}"] = [
            f"command = {_value(shlex.join(program.command))}",
            f"directory = {_value(str(program.folder))}",
            f"priority = {program.priority}",
            # Started in order by the caller, who waits for each to answer; kept running by supervisor from then on.
            BY_CALLER,
            "autorestart = true",
            "startsecs = 1",
            "startretries = 5",
            f"stopsignal = {program.stop_signal}",
            "stopwaitsecs = 15",
            "killasgroup = true",
            "redirect_stderr = true",
            f"stdout_logfile = {_value(str(folder.logs / (program.name + '.log')))}",
            "stdout_logfile_maxbytes = 2MB",
            "stdout_logfile_backups = 1",
            *([f"user = {program.user}"] if program.user else []),
        ]
    return "\n".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items())


def _value(text: str) -> str:
    """Return a value for supervisor's file format, which expands `%(name)s`."""
    return text.replace("%", "%%")
