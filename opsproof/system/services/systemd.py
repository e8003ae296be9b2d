"""Services under systemd, by `systemctl` and `journalctl`."""

from __future__ import annotations

import re
import shlex
from functools import cached_property

from opsproof.errors import HostError, ProgramMissing
from opsproof.system.hosts.host import Host
from opsproof.system.services.status import Boot, History, Phase, Status, seconds_up, user_of_process

_ASK_SECONDS = 30.0
_LOG_LINES = 20
_ANY_STATUS = range(256)
_PROPERTIES = "LoadState,ActiveState,SubState,Type,MainPID,User,Result,NRestarts"
_PHASES: dict[str, Phase] = {
    "active": "running",
    "reloading": "running",
    "refreshing": "running",
    # Also the pause before systemd tries again (auto-restart).
    "activating": "starting",
    "deactivating": "stopping",
    "inactive": "stopped",
    "failed": "stopped",
}
# `generated` is an init script's; `static` and `indirect` are started by another unit.
_AT_BOOT = frozenset({"enabled", "enabled-runtime", "alias", "static", "indirect", "generated"})
_NO_SYSTEMD = re.compile(r"not been booted with systemd|Failed to connect to (?:system scope )?bus|Failed to get D-Bus")
_DENIED = re.compile(
    # sudo's warnings (`unable to resolve host`) are no refusal.
    r"^sudo: (?:a (?:password|terminal) is required|sorry|interactive authentication|effective uid|The \"no new priv)|"
    r"is not (?:in the sudoers file|allowed to)|may not run sudo|Access denied|"
    r"(?:Interactive a|A)uthentication (?:is )?required",
    re.MULTILINE,
)


class Systemd:
    """systemd on a host; what changes something goes through `sudo -n` where the account is not root."""

    name = "systemd"

    def __init__(self, host: Host) -> None:
        self._host = host

    def status(self, service: str) -> Status:
        """Return how a unit does.

        Raises:
            HostError: There is no such unit, or systemd does not answer.
        """
        known = self._show(service)
        active, sub = known["ActiveState"], known.get("SubState", "")
        phase = _PHASES.get(active, "unclear")
        if active == "active" and sub == "exited" and known.get("Type") != "oneshot":
            # systemd remembers its start, but it has no process left (an init script without a pid file).
            phase = "stopped"
        pid = int(known.get("MainPID") or 0)
        why = known.get("Result", "success")
        word = f"{active} ({sub})" + (f", {why}" if why not in {"success", ""} else "")
        return Status(word, phase, (pid,) if pid else ())

    def stop(self, service: str, timeout: float) -> str:
        """Stop it and return what systemctl said; `timeout` in seconds.

        Raises:
            CommandTimeout: systemctl did not come back in time; systemd goes on with it.
            HostError: There is no such unit, the account may not, or systemd does not answer.
        """
        return self._change("stop", service, timeout)

    def start(self, service: str, timeout: float) -> str:
        """Start it and return what systemctl said; arguments and errors as with `stop`."""
        known = self._show(service)
        if known["LoadState"] == "masked":
            raise HostError(
                f"{service} is masked: systemd may not start it",
                expected="a unit that can be started",
                found="LoadState=masked",
                hint=f"systemctl unmask {shlex.quote(service)}",
            )
        return self._change("start", service, timeout)

    def read_log(self, service: str) -> str:
        """Return its last lines in the journal, or why they cannot be read."""
        command = ("journalctl", "-u", service, "-n", str(_LOG_LINES), "--no-pager")
        try:
            done = self._host.run(*self._sudo, *command, timeout=_ASK_SECONDS, accept=_ANY_STATUS)
        except HostError as error:
            return f"the journal cannot be read: {error.summary}"
        if done.status != 0:
            return f"the journal cannot be read: {done.stderr.strip()}"
        return done.stdout.strip()

    def owner(self, service: str) -> str | None:
        """Return the unit's `User=`; else its main process's user, else None: an init script changes it on its own.

        Raises:
            HostError: There is no such unit, or systemd does not answer.
        """
        known = self._show(service)
        pid = int(known.get("MainPID") or 0)
        return known.get("User") or (user_of_process(self._host, pid) if pid else None)

    def remedy(self, service: str) -> str:
        """Return what to type to look into it."""
        name = shlex.quote(service)
        return (
            f"systemctl status {name}; journalctl -u {name}; if it was tried too often: systemctl reset-failed {name}"
        )

    def start_command(self, service: str) -> str:
        """Return what to type to start it."""
        return f"systemctl start {shlex.quote(service)}"

    def at_boot(self, service: str) -> Boot:
        """Return whether it is enabled, or started by something that is.

        Raises:
            HostError: There is no such unit, or systemd does not answer.
        """
        self._show(service)
        done = self._host.run("systemctl", "is-enabled", service, timeout=_ASK_SECONDS, accept=_ANY_STATUS)
        word = done.stdout.strip() or done.stderr.strip()
        return Boot(word, word in _AT_BOOT, f"systemctl enable {shlex.quote(service)}")

    def history(self, service: str) -> History:
        """Return how often systemd has restarted it since somebody started it.

        Raises:
            HostError: There is no such unit, or systemd does not answer.
        """
        known = self._show(service)
        pid = int(known.get("MainPID") or 0)
        # Since systemd 235.
        return History(int(known.get("NRestarts") or 0), seconds_up(self._host, pid) if pid else None)

    def _show(self, service: str) -> dict[str, str]:
        text = self._run(service, "show", "-p", _PROPERTIES, service, timeout=_ASK_SECONDS)
        known = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        if known.get("LoadState") == "not-found":
            raise HostError(
                f"systemd has no unit {service}",
                expected="a unit of the host",
                found="LoadState=not-found",
                kept="nothing was stopped or started",
                hint="systemctl list-units --all --type=service, then correct `services` in the inventory",
            )
        if "LoadState" not in known or "ActiveState" not in known:
            raise HostError(
                f"systemctl's answer about {service} is not a status",
                expected="LoadState=... and ActiveState=...",
                found=text or "nothing",
                hint=f"systemctl show {shlex.quote(service)}",
            )
        return known

    def _change(self, verb: str, service: str, timeout: float) -> str:
        # Nothing but verb and unit, so that a sudoers rule can name exactly this.
        return self._run(service, verb, service, timeout=timeout, sudo=True)

    @cached_property
    def _sudo(self) -> tuple[str, ...]:
        """`sudo -n` where it is needed and there; without it polkit decides."""
        is_root = self._host.run("id", "-u").stdout.strip() == "0"
        return () if is_root or self._host.find_program("sudo") is None else ("sudo", "-n")

    def _run(self, service: str, *words: str, timeout: float, sudo: bool = False) -> str:
        if self._host.find_program("systemctl") is None:
            raise ProgramMissing(
                "systemctl not found",
                expected="systemctl on the host, for systemd is the inventory's `service_manager`",
                found="no such program",
                kept="nothing was stopped or started",
                hint="in the inventory: service_manager: supervisor",
            )
        prefix = self._sudo if sudo else ()
        done = self._host.run(*prefix, "systemctl", *words, timeout=timeout, accept=_ANY_STATUS)
        text = f"{done.stdout}\n{done.stderr}".strip()
        if done.status != 0:
            self._explain(service, text)
        return text

    def _explain(self, service: str, text: str) -> None:
        if _NO_SYSTEMD.search(text):
            raise HostError(
                "systemd does not run on this host",
                expected="systemd as the first process, for it is the inventory's `service_manager`",
                found=text.splitlines()[0],
                kept="nothing was stopped or started",
                hint="in the inventory: service_manager: supervisor",
            )
        if _DENIED.search(text):
            account = self._host.run("id", "-un").stdout.strip()
            program = self._host.find_program("systemctl")
            allowed = ", ".join(f"{program} {verb} {service}" for verb in ("stop", "start"))
            raise HostError(
                f"{account} may not stop and start {service}",
                expected="root, or an account that sudo lets do so without a password",
                found=text,
                kept="nothing was stopped or started",
                hint=f"visudo -f /etc/sudoers.d/opsproof, and write: {account} ALL=(root) NOPASSWD: {allowed}",
            )
