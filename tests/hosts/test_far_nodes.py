"""An application with a node on another host: both are stopped before the swap, and both run again after it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.debian_host import DebianHost
from tests.lab.odoo_host import ENVIRONMENT, TARGET, project_of, variables_of

pytest_plugins = ["tests.lab.lab_hosts"]
pytestmark = pytest.mark.lab
PID = "systemctl show -p MainPID --value odoo"


def test_a_second_node_is_stopped_and_started_with_the_first(boot_lab_host: Callable[[str], DebianHost]) -> None:
    first, second = boot_lab_host("first"), boot_lab_host("second")
    with project_of(first, "ops") as project:
        reached = {name: value for name, value in variables_of(second).items() if name.startswith("ansible_")}
        both = ["odoo", {"name": "odoo", "host": "node2"}]
        project.write_inventory({ENVIRONMENT: {TARGET: {**variables_of(first, "ops"), "services": both}},
                                 "nodes": {"node2": reached}})  # fmt: skip
        backup = project.run(env=ENVIRONMENT)
        assert backup.status == 0, backup.output
        before = second.run(PID), first.run(PID)
        run = project.run(action="actions/test_restore.py", env=ENVIRONMENT)
        assert run.status == 0, run.output
        assert second.run(PID) not in ("0", before[0])
        assert first.run(PID) not in ("0", before[1])
        check = project.run(action="checks/test_service.py", env=ENVIRONMENT)
        assert check.status == 0, check.output
        second.down()
        failed = project.run(action="checks/test_service.py", env=ENVIRONMENT)
        assert failed.status == 1
        assert f"{second.address} cannot be reached by ssh" in failed.output
