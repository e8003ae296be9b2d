"""ssh to one host: a connection that is authenticated once, and the sessions of many commands in it.

The connection's own session is a lifeline: a shell on the host that hears from us every few seconds. When it does not
any more (the network was cut, this process was killed), it ends whatever this run has left there: dumps, sessions of
the database, and with them their snapshots and locks.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from opsproof.errors import HostError, ProgramMissing
from opsproof.system.hosts.carrying import Carrier, short_folder
from opsproof.system.hosts.undivided import undivided
from opsproof.system.hosts.wrapped import SWEEP
from opsproof.target import Connection

BEAT_SECONDS = 5.0
SILENCE_SECONDS = 30
"""After which the host ends what a run has left."""
# sshd allows 10 sessions in a connection (MaxSessions); the lifeline is one, and one that just ends may still count.
MOST_SESSIONS = 8
CONNECT_SECONDS = 15
_ALIVE_SECONDS, _ALIVE_COUNT = 10, 3
_READY = b"opsproof is here\n"
_LIFELINE = (
    f'printf "opsproof is here\\n"; while [ -n "$(timeout {SILENCE_SECONDS} head -c 1)" ]; do :; done;'
    f" set -- TERM; {SWEEP}; sleep 5; set -- KILL; {SWEEP}"
)
# As the first account that sudo lets it be; else as it is, and the first command that needs sudo tells.
_AS_WHOM = (
    'lifeline=$1; shift; for user in "$@"; do if sudo -n -u "$user" -- true 2>/dev/null;'
    ' then exec sudo -n -u "$user" -- sh -c "$lifeline" "$0"; fi; done; exec sh -c "$lifeline" "$0"'
)
# ssh takes its socket away, but leaves the folder that was made for it, which nobody else removes after a kill.
_TIDY = 'folder=$0; trap : TERM; "$@"; status=$?; rm -rf -- "$folder"; exit "$status"'
_LOST = 255
_UNKNOWN_KEY = re.compile(
    r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|No .* host key is known"
)
_REFUSED = re.compile(r"Permission denied|Too many authentication failures|no mutual signature|Load key")


class SshConnections:
    """The connections to one host: one, and another where its sessions are all taken.

    Args:
        connection: How the inventory reaches the host.
        run: What tells this run's processes there.
        environ: The variables that ssh itself gets.
    """

    is_local = False

    def __init__(self, connection: Connection, run: str, environ: Mapping[str, str]) -> None:
        self._connection = connection
        self._run = run
        self._environ = dict(environ)
        self._masters: list[_Master] = []
        self._lock = threading.Lock()
        atexit.register(self.close)

    def take(self) -> Carrier:
        """Take a session of a connection.

        Raises:
            HostError: The host cannot be reached, is not the one it was, or does not let us in.
            ProgramMissing: There is no ssh here.
        """
        master = self._take()
        line = self._ssh("-S", str(master.socket), "-o", "ControlMaster=no")
        return Carrier(lambda command: (*line, shlex.join(command)), master.mark, lambda: self._give_back(master))

    def explain(self, status: int, stderr: str) -> HostError | None:
        """Return why a command did not reach its host, or lost it."""
        return self._unreachable(stderr) if status == _LOST else None

    def close(self) -> None:
        """End the connections; the lifelines end what is left on the host."""
        with self._lock:
            masters, self._masters = self._masters, []
        for master in masters:
            master.close()

    def _take(self) -> _Master:
        with self._lock:
            for master in [one for one in self._masters if not one.is_alive()]:
                self._masters.remove(master)
                master.close()
            free = next((one for one in self._masters if one.sessions < MOST_SESSIONS), None)
            if free is None:
                free = self._open()
                self._masters.append(free)
            free.sessions += 1
            return free

    def _give_back(self, master: _Master) -> None:
        with self._lock:
            master.sessions -= 1

    def _open(self) -> _Master:
        if shutil.which("ssh") is None:
            raise ProgramMissing(
                "ssh not found",
                expected="the program ssh on this machine",
                found="no such file on PATH",
                kept="nothing was started",
                hint="apt-get install openssh-client",
            )
        folder = short_folder()
        # Of its own: a connection that was lost ends what it has left, and nothing of the one that came after it.
        master = _Master(folder / "s", f"{self._run}-{secrets.token_hex(4)}")
        command = shlex.join(["sh", "-c", _AS_WHOM, master.mark, _LIFELINE, *self._becoming])
        argv = (*self._ssh("-M", "-S", str(master.socket), "-o", "ControlPersist=no"), command)
        try:
            if not master.open(argv, self._environ):
                raise self._unreachable(master.stderr())
        except BaseException:
            master.close()
            raise
        return master

    @property
    def _becoming(self) -> tuple[str, ...]:
        """What lets the lifeline end processes of other accounts, too: the likelier first."""
        one = self._connection
        return tuple(dict.fromkeys(("root", one.become_user or "root"))) if one.become else ()

    def _ssh(self, *options: str) -> tuple[str, ...]:
        one = self._connection
        # Of two equal options the first counts: the inventory's own come first.
        return (
            "ssh", *options, *shlex.split(one.ssh_common_args), "-T", "-x", "-o", "BatchMode=yes",
            "-o", f"ConnectTimeout={CONNECT_SECONDS}", "-o", f"ServerAliveInterval={_ALIVE_SECONDS}",
            "-o", f"ServerAliveCountMax={_ALIVE_COUNT}", "-o", "ForwardAgent=no", "-o", "LogLevel=ERROR",
            *(["-p", str(one.port)] if one.port else []), *(["-l", one.user] if one.user else []),
            *(["-i", one.private_key_file] if one.private_key_file else []), "--", one.host,
        )  # fmt: skip

    def _unreachable(self, stderr: str) -> HostError:
        one = self._connection
        shown = " ".join(["ssh", *shlex.split(one.ssh_common_args), *(["-p", str(one.port)] if one.port else []),
                          *(["-i", one.private_key_file] if one.private_key_file else []),
                          f"{one.user}@{one.host}" if one.user else one.host])  # fmt: skip
        found = "\n".join(stderr.strip().splitlines()[-12:]) or "the connection was lost"
        if _UNKNOWN_KEY.search(stderr):
            return HostError(
                f"{one.host} is not known by its host key",
                expected="the key that known_hosts has: a stranger must not get the database",
                found=found,
                kept="nothing was sent",
                hint=f"compare `ssh-keyscan {one.host}` with the host's own /etc/ssh/ssh_host_*_key.pub; then {shown}",
            )
        if _REFUSED.search(stderr):
            return HostError(
                f"{one.host} does not let {one.user or 'this account'} in",
                expected="a key that the host accepts, without a password to type",
                found=found,
                kept="nothing was started",
                hint=f"{shown}; then ansible_user and ansible_ssh_private_key_file in the inventory",
            )
        if re.search(r"^sudo: (?!unable to resolve host)", stderr, re.MULTILINE):
            return sudo_refused(one, one.become_user or "root", found)
        return HostError(
            f"{one.host} cannot be reached by ssh",
            expected=f"an answer within {CONNECT_SECONDS} seconds, and a connection that stays",
            found=found,
            kept=f"what ran there ends within {SILENCE_SECONDS + 5} seconds of silence",
            hint=shown,
        )


def sudo_refused(connection: Connection, other: str, found: str) -> HostError:
    """Say that sudo is not there, wants a password, or refuses."""
    user = connection.user or "the account"
    return HostError(
        f"sudo on {connection.host or 'this host'} does not let {user} be {other}",
        expected=f"sudo without a password, to {other}",
        found=found,
        kept="nothing was started",
        hint=f"visudo -f /etc/sudoers.d/opsproof, and write: {user} ALL=({other}) NOPASSWD: ALL",
    )


class _Master:
    """One authenticated connection, which lives as long as its lifeline."""

    def __init__(self, socket: Path, mark: str) -> None:
        self.socket = socket
        self.mark = mark
        self.sessions = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the connection

    def open(self, argv: Sequence[str], environ: Mapping[str, str]) -> bool:
        """Connect; return whether the host answered."""
        with undivided():
            self._process = subprocess.Popen(
                ("/bin/sh", "-c", _TIDY, str(self.socket.parent), *argv),
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                start_new_session=True,
                bufsize=0,
            )
        answer, deadline = b"", time.monotonic() + 2 * CONNECT_SECONDS
        stdout = self._process.stdout
        while stdout is not None and not answer.endswith(_READY) and time.monotonic() < deadline:
            if select.select([stdout], [], [], 0.5)[0]:
                piece = os.read(stdout.fileno(), 4096)
                if not piece:
                    break
                answer += piece
        if not answer.endswith(_READY):
            return False
        threading.Thread(target=self._beat, daemon=True).start()
        return True

    def is_alive(self) -> bool:
        """Tell whether the connection stands, as far as ssh knows."""
        return self._process is not None and self._process.poll() is None

    def stderr(self) -> str:
        """Return what ssh said."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")

    def close(self) -> None:
        """End the lifeline, and with it the connection."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
            # A moment for the sessions that are just ending; the lifeline itself goes on without us.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)
            self._signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
            self._signal(signal.SIGKILL)
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
        shutil.rmtree(self.socket.parent, ignore_errors=True)
        if not self._stderr.closed:
            self._stderr.close()

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to ssh and to the shell that waits for it, as long as that does."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _beat(self) -> None:
        process = self._process
        while process is not None and process.stdin is not None and process.poll() is None:
            try:
                process.stdin.write(b".")
            except (OSError, ValueError):
                return
            time.sleep(BEAT_SECONDS)
