"""The application's services: each runs, comes back after a reboot, and has not been restarting. Read-only."""

from __future__ import annotations

from testinfra.host import Host

from opsproof.inspection.services import check_at_boot, check_runs, check_steady
from opsproof.system.service import Service
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
