"""Services of a target; and what supervisorctl says that a real one would not say here."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsproof.errors import CommandFailed
from opsproof.system.services.service import Service, services_of
from opsproof.system.services.supervisor import Supervisor
from opsproof.target import DatabaseAddress, DirectoryStoreSettings, Target
from tests.lab.scripted import HOST, Machine, machine, refusal

__all__ = ["machine"]


class TestSupervisorsWords:
    """supervisorctl of other versions and other accounts; the real one is in the integration tests."""

    @pytest.mark.parametrize(
        ("said", "summary"),
        [
            # 3.x: nothing but the text says that it failed.
            ("web: ERROR (no such process)", "supervisor has no program web"),
            (
                "error: <class 'PermissionError'>, [Errno 13] Permission denied: file: /x/xmlrpc.py line: 560",
                "This account may not speak with supervisor",
            ),
            (
                "error: <class 'socket.error'>, [Errno 13] Permission denied: file: /usr/lib/python2.7/socket.py",
                "This account may not speak with supervisor",
            ),
            ("Server requires authentication", "This account may not speak with supervisor"),
            ("http://localhost:9001 refused connection", "supervisor does not run"),
            ("something else", "supervisorctl's answer about web is not a status"),
        ],
    )
    def test_a_refusal_with_status_0_is_an_error(self, machine: Machine, said: str, summary: str) -> None:
        machine.write(supervisorctl=f'echo "{said}"')
        web = Service("web", Supervisor(HOST))
        for action in (web.is_running, web.stop, web.start):
            assert refusal(action).summary == summary

    def test_a_log_that_speaks_of_permissions_is_no_refusal(self, machine: Machine) -> None:
        machine.write(
            supervisorctl='case $1 in tail) echo "error: Permission denied" ;; *) echo "web  FATAL  Exited" ;; esac'
        )
        error = refusal(Service("web", Supervisor(HOST)).start, CommandFailed)
        assert error.found.splitlines()[0] == "FATAL"
        assert error.found.splitlines()[-1] == "error: Permission denied"


def test_a_targets_services_come_in_their_order_under_its_manager() -> None:
    target = Target(
        name="web",
        environment="prod",
        database=DatabaseAddress("acme"),
        store=DirectoryStoreSettings(Path("b")),
        customer="",
        services=("worker", "web"),
    )
    assert [one.describe() for one in services_of(target, HOST)] == ["systemd: worker", "systemd: web"]
