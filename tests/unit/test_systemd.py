"""Services under systemd, as its own programs tell of them."""

from __future__ import annotations

import getpass
import os
import time
from pathlib import Path

import pytest

from opsproof.errors import CommandFailed, CommandTimeout, ProgramMissing
from opsproof.system.services.service import Service
from opsproof.system.services.systemd import Systemd
from tests.lab.scripted import DOWN, FAILED, HOST, UP, Machine, machine, refusal

__all__ = ["machine"]

AGAIN = UP.replace("=41", "=42")
NO_SUCH = DOWN.replace("=loaded", "=not-found")


@pytest.fixture
def odoo(machine: Machine) -> Service:
    assert machine.folder.is_dir()
    return Service("odoo", Systemd(HOST))


class TestSystemd:
    def test_a_stop_and_a_start_go_through_systemctl_and_are_seen_to_have_worked(
        self, machine: Machine, odoo: Service
    ) -> None:
        assert odoo.is_running()
        assert odoo.stop() < 10
        assert (odoo.is_running(), odoo.is_stopped()) == (False, True)
        assert odoo.start() < 10
        assert (odoo.is_running(), odoo.is_stopped()) == (True, False)
        assert machine.calls == ["systemctl stop odoo", "systemctl start odoo"]
        assert odoo.describe() == "systemd: odoo"

    def test_a_stop_that_did_not_stop_it_is_an_error_whatever_systemctl_says(
        self, machine: Machine, odoo: Service
    ) -> None:
        machine.write(stop="true")
        error = refusal(odoo.stop, CommandFailed)
        assert (error.summary, error.found) == ("systemd: odoo did not stop", "active (running)")

    def test_a_unit_that_had_to_be_killed_is_down(self, machine: Machine, odoo: Service) -> None:
        machine.write(stop=f"cat >show <<END\n{FAILED}END")
        odoo.stop()
        assert odoo.is_stopped()

    def test_a_stop_that_takes_too_long_is_an_error(self, machine: Machine, odoo: Service) -> None:
        stopping = UP.replace("=active", "=deactivating").replace("=running", "=stop-sigterm")
        machine.write(stop=f"cat >show <<END\n{stopping}END\nsleep 60")
        began = time.monotonic()
        error = refusal(lambda: odoo.stop(timeout=0.3), CommandTimeout)
        assert time.monotonic() - began < 10
        assert error.found.splitlines()[0] == "deactivating (stop-sigterm)"

    def test_a_failed_start_carries_what_systemctl_said_and_the_journal(self, machine: Machine, odoo: Service) -> None:
        machine.write(start=f"cat >show <<END\n{FAILED}END\necho 'Job for odoo.service failed.' >&2; exit 1")
        error = refusal(odoo.start, CommandFailed)
        assert error.found.splitlines() == [
            "failed (failed), exit-code",
            "Job for odoo.service failed.",
            "its last lines:",
            "odoo[41]: database acme does not exist",
        ]
        assert machine.calls[-1] == "journalctl -u odoo -n 20 --no-pager"

    @pytest.mark.parametrize(
        ("later", "told"),
        [
            (FAILED, "it ended right after its start"),
            (AGAIN, "it ended right after its start and was started again: process 41, 42"),
            (UP.replace("=active", "=activating").replace("=running", "=auto-restart"), "activating (auto-restart)"),
        ],
    )
    def test_a_unit_that_dies_right_after_its_start_did_not_start(
        self, machine: Machine, odoo: Service, later: str, told: str
    ) -> None:
        machine.write(start=f"cat >show <<END\n{UP}END\ncat >later <<END\n{later}END")
        error = refusal(odoo.start, CommandFailed)
        assert told in error.found.splitlines()
        assert "odoo[41]: database acme does not exist" in error.found

    @pytest.mark.parametrize(
        ("word", "is_started"),
        [("enabled", True), ("static", True), ("generated", True), ("disabled", False), ("masked", False)],
    )
    def test_it_is_told_whether_it_comes_back_after_a_reboot(
        self, machine: Machine, odoo: Service, word: str, is_started: bool
    ) -> None:
        (machine.folder / "is-enabled").write_text(f"echo {word}; [ {word} = enabled ]")
        boot = odoo.at_boot()
        assert (boot.word, boot.is_started) == (word, is_started)
        assert boot.remedy == "systemctl enable odoo"

    def test_its_restarts_are_those_that_systemd_has_counted(self, machine: Machine, odoo: Service) -> None:
        machine.write(show=f"{UP.replace('=41', f'={os.getpid()}')}NRestarts=3\n")
        history = odoo.history()
        assert history.restarts == 3
        assert history.seconds_up is not None
        assert history.seconds_up < 100_000
        machine.write(show=DOWN)
        assert odoo.history().seconds_up is None

    def test_a_start_waits_for_a_stop_that_goes_on(self, machine: Machine, odoo: Service) -> None:
        machine.write(show=UP.replace("=active", "=deactivating"), later=DOWN)
        odoo.start()
        asked = (machine.folder / "calls").read_text().splitlines()
        assert [line.split()[1] for line in asked] == ["show", "show", "show", "start", "show", "show"]

    @pytest.mark.parametrize(
        ("shown", "phase"),
        [
            (UP, "running"),
            (UP.replace("=active", "=reloading"), "running"),
            (UP.replace("=running", "=exited").replace("=simple", "=oneshot"), "running"),
            (UP.replace("=running", "=exited").replace("=simple", "=forking"), "stopped"),
            (UP.replace("=active", "=activating").replace("=running", "=auto-restart"), "starting"),
            (UP.replace("=active", "=deactivating"), "stopping"),
            (DOWN, "stopped"),
            (FAILED, "stopped"),
            (UP.replace("=active", "=maintenance"), "unclear"),
        ],
    )
    def test_the_states_of_a_unit(self, machine: Machine, odoo: Service, shown: str, phase: str) -> None:
        machine.write(show=shown)
        assert odoo.status().phase == phase
        assert (odoo.is_running(), odoo.is_stopped()) == (phase == "running", phase == "stopped")

    def test_an_account_that_is_not_root_asks_sudo_for_nothing_but_verb_and_unit(
        self, machine: Machine, odoo: Service
    ) -> None:
        machine.write(uid="1000")
        odoo.stop()
        odoo.start()
        assert machine.calls == ["sudo -n", "systemctl stop odoo", "sudo -n", "systemctl start odoo"]

    @pytest.mark.parametrize(
        "said",
        [
            "sudo: a password is required",
            "Sorry, user ops is not allowed to execute '/bin/systemctl stop odoo' as root on web.",
            "Failed to stop odoo.service: Interactive authentication required.",
        ],
    )
    def test_an_account_that_may_not_is_told_the_rule_to_write(
        self, machine: Machine, odoo: Service, said: str
    ) -> None:
        machine.write(uid="1000", sudo=f'echo "{said}" >&2; exit 1')
        error = refusal(odoo.stop)
        path = machine.folder / "systemctl"
        assert (error.summary, error.found) == ("ops may not stop and start odoo", said)
        assert error.hint.endswith(f"ops ALL=(root) NOPASSWD: {path} stop odoo, {path} start odoo")

    def test_a_warning_of_sudo_is_no_refusal(self, machine: Machine, odoo: Service) -> None:
        warning = "sudo: unable to resolve host web: Name or service not known"
        machine.write(uid="1000", sudo=f'echo "{warning}" >&2; exit 1', show=DOWN)
        assert warning in refusal(odoo.start, CommandFailed).found

    def test_a_journal_that_may_not_be_read_hides_no_failure(self, machine: Machine, odoo: Service) -> None:
        machine.write(start="exit 1", show=DOWN, journalctl="echo 'No journal files were opened' >&2; exit 1")
        error = refusal(odoo.start, CommandFailed)
        assert error.summary == "systemd: odoo did not start"
        assert error.found.endswith("the journal cannot be read: No journal files were opened")

    def test_a_unit_that_does_not_exist_or_is_masked_is_named(self, machine: Machine, odoo: Service) -> None:
        not_loaded = "echo 'Failed to stop odoo.service: Unit odoo.service not loaded.' >&2; exit 5"
        machine.write(show=NO_SUCH, stop=not_loaded)
        for action in (odoo.is_running, odoo.stop, odoo.start, odoo.owner):
            assert refusal(action).summary == "systemd has no unit odoo"
        machine.write(show=DOWN.replace("=loaded", "=masked"))
        assert refusal(odoo.start).hint == "systemctl unmask odoo"
        assert "systemctl start odoo" not in machine.calls

    def test_a_host_without_systemd_is_told_the_other_manager(self, machine: Machine, odoo: Service) -> None:
        said = "System has not been booted with systemd as init system (PID 1). Can't operate."
        machine.write(systemctl=f'echo "{said}" >&2; exit 1')
        error = refusal(odoo.stop)
        assert (error.found, error.hint) == (said, "in the inventory: service_manager: supervisor")

    def test_a_missing_systemctl_is_named(self, tmp_path: Path, odoo: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        error = refusal(odoo.stop, ProgramMissing)
        assert (error.summary, error.hint) == ("systemctl not found", "in the inventory: service_manager: supervisor")

    def test_an_answer_that_is_no_status_is_an_error(self, machine: Machine, odoo: Service) -> None:
        machine.write(show="nonsense\n")
        assert refusal(odoo.is_running).found == "nonsense"

    def test_the_owner_is_the_units_user_or_its_processs(self, machine: Machine, odoo: Service) -> None:
        assert odoo.owner() == "odoo"
        machine.write(show=UP.replace("User=odoo", "User=").replace("=41", f"={os.getpid()}"))
        assert odoo.owner() == getpass.getuser()
        machine.write(show=DOWN.replace("User=odoo", "User="))
        assert odoo.owner() is None
        assert Service("odoo", Systemd(HOST), user="given").owner() == "given"
