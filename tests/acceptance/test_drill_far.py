"""A drill on another machine, over a real sshd, that is killed while its application runs there."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from opsproof.system.hosts.ssh import SILENCE_SECONDS
from tests.lab.drilling import DRILL, STAGING, DrillGround
from tests.lab.ssh_server import SshServer, ssh_server
from tests.lab.trialserver import TRACE
from tests.lab.waiting import await_true

__all__ = ["ssh_server"]

pytest_plugins = ["tests.lab.drilling"]

RECOVER = "actions/test_recover.py"
# The lifeline's silence, and what it grants those who are deaf to SIGTERM.
LIFELINE_SECONDS = SILENCE_SECONDS + 5.0


def begun_there(ground: DrillGround) -> list[str]:
    """Return the command lines of what runs have begun on staging's host for its database or for a copy of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environ = (process / "environ").read_bytes().decode(errors="replace")
            if "OPSPROOF_RUN=" in environ and ground.shop.name in environ + words:
                found.append(words)
    return found


def kill_while_it_runs(ground: DrillGround, ssh_server: SshServer) -> float:
    """Kill a drill once its application uses the copy; return how many seconds later nothing of it runs there."""
    ground.describe(**ssh_server.variables, **ground.starting("lurks", seconds=60))
    place = ground.shop.filestore.parent
    with ground.begin() as begun:
        begun.wait_until(lambda: [*place.glob(f"*__scratch_*/{TRACE}")] != [], 60)
        assert any("trialserver" in one for one in begun_there(ground))
        begun.send(signal.SIGKILL)
        killed = time.monotonic()
        assert begun.process.wait(10) == -signal.SIGKILL
    await_true(lambda: begun_there(ground) == [], "it outlives the drill", LIFELINE_SECONDS + 10)
    seconds = time.monotonic() - killed
    await_true(lambda: ssh_server.sessions() == [], "a connection stands", 15)
    left = ground.left()
    assert len([one for one in left if "__scratch_" in one]) == 2, left
    return seconds


@pytest.mark.parametrize("action", [pytest.param(DRILL, marks=pytest.mark.slow), RECOVER])
def test_what_a_killed_drill_has_left_there_is_gone_after_the_next(
    ground: DrillGround, ssh_server: SshServer, action: str
) -> None:
    """The application is in a session of its own and deaf to SIGTERM, and nobody is there to end it."""
    before = ground.look()
    assert kill_while_it_runs(ground, ssh_server) < LIFELINE_SECONDS
    ground.require_untouched(before)
    ground.describe(**ssh_server.variables, **ground.starting("well"))
    run = ground.drill() if action == DRILL else ground.project.run(action=RECOVER, env=STAGING)
    assert run.status == 0, run.output
    ground.require_untouched(before)
    ground.require_nothing_left()
