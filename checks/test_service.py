"""The application's services: each runs, comes back after a reboot, is steady, listens and answers. Read-only."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from opsproof.inspection.health import check_health
from opsproof.inspection.listening import check_listens, find_port
from opsproof.inspection.services import check_at_boot, check_runs, check_steady
from opsproof.system.hosts.host import Host as Machine
from opsproof.system.hosts.web import asker_of
from opsproof.system.services.service import Service
from opsproof.target import Target


class TestService:
    """What an application needs of its host's service manager."""

    def test_services_run(self, services: tuple[Service, ...], host: Host, target: Target) -> None:
        """Each is running, as its manager says."""
        check_runs(services)
        if target.service_manager == "systemd":
            assert all(host.service(one.name).is_running for one in services if one.label not in target.nodes)

    def test_services_start_at_boot(self, services: tuple[Service, ...]) -> None:
        """Each is enabled: it comes back when the host does."""
        check_at_boot(services)

    def test_services_are_steady(self, services: tuple[Service, ...]) -> None:
        """None was restarted by its manager in the last ten minutes, and none is restarting now."""
        check_steady(services)

    def test_application_listens(self, target: Target) -> None:
        """Somebody listens on the port of the application, as the kernel of its host says."""
        machine, port = Machine(target.connection), find_port(target)
        if port.number is None:
            pytest.skip(port.origin)
        assert check_listens(target, machine, port) == port.number

    def test_application_answers(self, target: Target) -> None:
        """The application's health page answers with a 2xx."""
        url = target.health_url
        if url is None:
            pytest.skip(f"the inventory names no health_url of {target.name}")
        check_health(url, ask=asker_of(Machine(target.connection), url))
