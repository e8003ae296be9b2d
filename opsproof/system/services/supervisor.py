"""Services under supervisor, by `supervisorctl`.

Its exit status differs from version to version (3.x ends with 0 whatever happened), so the text is what counts: it is
the same since 3.0.
"""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from opsproof.errors import CommandTimeout, HostError, ProgramMissing
from opsproof.system.hosts.host import Host
from opsproof.system.services.status import Boot, History, Phase, Status, combine, seconds_up, user_of_process
from opsproof.system.services.supervisorsession import SupervisorSession

_ASK_SECONDS = 30.0
_LOG_BYTES = 4000
_LOG_LINES = 12
_ANY_STATUS = range(256)
_PHASES: dict[str, Phase] = {
    "RUNNING": "running",
    "STARTING": "starting",
    # It died in its first seconds and will be tried again.
    "BACKOFF": "starting",
    "STOPPING": "stopping",
    "STOPPED": "stopped",
    "EXITED": "stopped",
    "FATAL": "stopped",
    "UNKNOWN": "unclear",
}
_LINE = re.compile(rf"^(\S+)\s+({'|'.join(_PHASES)})\b[ \t]*(?:pid (\d+))?", re.MULTILINE)
_AVAILABLE = re.compile(r"^(\S+)\s+in use\s+(auto|manual)\b", re.MULTILINE)
_UNREACHABLE = re.compile(r"^(?:unix|https?)://.* (?:no such file|refused connection)", re.MULTILINE)
_DENIED = re.compile(r"^error: .*Permission ?(?:denied|Error)|requires authentication", re.MULTILINE)
_NOT_CONFIGURED = re.compile(r"could not (?:find|read) config file|No config file found|\.ini file does not include")
_HASTENED = ("status", "stop", "start")


class Supervisor:
    """supervisor on a host.

    Args:
        host: The machine.
        conf: Its configuration; None leaves it to supervisorctl's own search, /etc/supervisor/supervisord.conf among
            others.
    """

    name = "supervisor"

    def __init__(self, host: Host, conf: str | None = None) -> None:
        self._host = host
        self._conf = conf
        self._session: SupervisorSession | None = None

    def hasten(self) -> None:
        """Keep a supervisorctl open for what is asked from now on; where none stays open, each call has its own."""
        if self._session is None:
            with suppress(HostError):
                self._session = SupervisorSession(self._host, self._command(), _ASK_SECONDS)

    def relax(self) -> None:
        """End the supervisorctl that `hasten` has opened."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def status(self, service: str) -> Status:
        """Return how a program, `group:program` or a whole group (`group:*`) does.

        Raises:
            HostError: There is no such program, or supervisor does not answer.
        """
        return combine(self._parts(service))

    def stop(self, service: str, timeout: float) -> str:
        """Stop it and return what supervisorctl said; `timeout` in seconds.

        Raises:
            CommandTimeout: supervisorctl did not come back in time.
            HostError: There is no such program, or supervisor does not answer.
        """
        return self._run(service, "stop", service, timeout=timeout)

    def start(self, service: str, timeout: float) -> str:
        """Start it and return what supervisorctl said; arguments and errors as with `stop`."""
        return self._run(service, "start", service, timeout=timeout)

    def read_log(self, service: str) -> str:
        """Return the last lines of what it printed.

        Raises:
            HostError: supervisor does not answer.
        """
        parts = self._parts(service)
        part = next((name for name, status in parts if status.phase != "running"), parts[0][0])
        stdout, stderr = (self._tail(part, channel) for channel in ("stdout", "stderr"))
        return "\n".join(f"{stdout}\n{stderr}".strip().splitlines()[-_LOG_LINES:])

    def owner(self, service: str) -> str | None:
        """Return the user of its running process; None while it is down, for supervisorctl does not tell then.

        Raises:
            HostError: There is no such program, or supervisor does not answer.
        """
        pids = self.status(service).pids
        return user_of_process(self._host, pids[0]) if pids else None

    def remedy(self, service: str) -> str:
        """Return what to type to look into it."""
        return f"{self._shown('tail', service)}; {self._shown('status')}"

    def start_command(self, service: str) -> str:
        """Return what to type to start it."""
        return self._shown("start", service)

    def at_boot(self, service: str) -> Boot:
        """Return whether each part of it has `autostart`.

        Raises:
            HostError: There is no such program, or supervisor does not answer.
        """
        parts = [name for name, _ in self._parts(service)]
        words = dict(_AVAILABLE.findall(self._run(service, "avail", explain=False)))
        left_out = [name for name in parts if words.get(name) != "auto"]
        word = "autostart" if not left_out else f"autostart is false: {', '.join(left_out)}"
        return Boot(word, not left_out, "in supervisor's configuration: autostart = true; then supervisorctl update")

    def history(self, service: str) -> History:
        """Return how long it has been up; supervisor does not count its restarts, but tries again after a fall.

        Raises:
            HostError: There is no such program, or supervisor does not answer.
        """
        parts = self._parts(service)
        fallen = sum(status.word == "BACKOFF" for _, status in parts)
        ups = [up for _, status in parts for pid in status.pids if (up := seconds_up(self._host, pid)) is not None]
        return History(fallen, min(ups, default=None))

    def _parts(self, service: str) -> list[tuple[str, Status]]:
        text = self._run(service, "status", service)
        parts = [
            (name, Status(word, _PHASES[word], (int(pid),) if pid and int(pid) else ()))
            for name, word, pid in _LINE.findall(text)
        ]
        if not parts:
            raise HostError(
                f"supervisorctl's answer about {service} is not a status",
                expected=f"{service}  RUNNING, STOPPED or the like",
                found=text or "nothing",
                hint=self._shown("status", service),
            )
        return parts

    def _tail(self, part: str, channel: str) -> str:
        text = self._run(part, "tail", f"-{_LOG_BYTES}", part, channel, explain=False)
        return "" if text.startswith(f"{part}: ERROR (") else text

    def _run(self, service: str, *words: str, timeout: float = _ASK_SECONDS, explain: bool = True) -> str:
        """Run supervisorctl; with `explain`, an answer that is no answer is raised, for a log may say anything."""
        text = self._say(*words, timeout=timeout)
        if explain:
            self._explain(service, text)
        return text

    def _say(self, *words: str, timeout: float) -> str:
        if self._session is not None and words[0] in _HASTENED:
            try:
                return self._session.ask(*words, timeout=timeout)
            except HostError as error:
                self.relax()
                if isinstance(error, CommandTimeout):
                    raise
        done = self._host.run(*self._command(), *words, timeout=timeout, accept=_ANY_STATUS)
        return f"{done.stdout}\n{done.stderr}".strip()

    def _command(self) -> tuple[str, ...]:
        program = self._host.find_program("supervisorctl")
        if program is None:
            # Installed beside this package, whose virtual environment need not be on PATH.
            beside = str(Path(sys.executable).parent / "supervisorctl")
            program = beside if self._host.is_executable(beside) else None
        if program is None:
            raise ProgramMissing(
                "supervisorctl not found",
                expected="supervisorctl on the host's PATH, as the inventory says `service_manager: supervisor`",
                found="no such program",
                kept="nothing was stopped or started",
                hint="apt-get install supervisor, or in the inventory: service_manager: systemd",
            )
        return (program, "-c", self._conf) if self._conf else (program,)

    def _explain(self, service: str, text: str) -> None:
        if "ERROR (no such process)" in text or "ERROR (no such group)" in text:
            raise self._no_such(service)
        shown = "\n".join(text.splitlines()[:3])
        if _UNREACHABLE.search(text):
            raise HostError(
                "supervisor does not run",
                expected="a supervisord that answers supervisorctl",
                found=shown,
                kept="nothing was stopped or started",
                hint=f"supervisord -c {shlex.quote(self._conf)}" if self._conf else "systemctl start supervisor",
            )
        if _DENIED.search(text):
            raise HostError(
                "This account may not speak with supervisor",
                expected="an account that its socket, or its user and password in [supervisorctl], let in",
                found=shown,
                kept="nothing was stopped or started",
                hint="run as root, or let a group in: `chmod = 0770` and `chown = root:GROUP` in [unix_http_server]",
            )
        if _NOT_CONFIGURED.search(text):
            raise HostError(
                "supervisorctl cannot read its configuration",
                expected=self._conf or "supervisord.conf in one of supervisorctl's own places",
                found=shown,
                kept="nothing was stopped or started",
                hint="name it in the inventory: supervisor_conf: /etc/supervisor/supervisord.conf",
            )

    def _no_such(self, service: str) -> HostError:
        known = [found[0] for found in _LINE.findall(self._run(service, "status", explain=False))]
        group = any(name.startswith(f"{service}:") for name in known)
        return HostError(
            f"supervisor has no program {service}",
            expected=f"one of {', '.join(known)}" if known else "a program of supervisor's configuration",
            found=service,
            kept="nothing was stopped or started",
            hint=f'in the inventory: services: ["{service}:*"]' if group else self._shown("status"),
        )

    def _shown(self, *words: str) -> str:
        return shlex.join(["supervisorctl", *(["-c", self._conf] if self._conf else []), *words])
