"""Recover from a killed run, or take the last restore back: `pytest actions/test_recover.py --env=staging [--undo]`."""

from __future__ import annotations

import pytest

from opsproof.plugin.run import Run
from opsproof.procedures.recover.procedure import Recover


@pytest.mark.procedure
class TestRecover:
    """Bring a target to a proven end after a run that was killed; with --undo, take its last restore back.

    Run it when another action says that something is unfinished, or when a restore turns out to have been a mistake.
    Where nothing is unfinished it changes nothing, and looks whether all is well.
    """

    def test_find_unfinished(self, recover: Recover, run: Run) -> None:
        """What a run left on the server, and what an undo would lose; this is the plan."""
        assert recover.find_unfinished()
        recover.count_losses()
        run.plans[recover.target.name] = [*recover.describe(), *recover.plan()]

    def test_confirmed(self, recover: Recover) -> None:
        """A restore of a protected environment is taken back only where its target was named."""
        recover.require_confirmation()

    @pytest.mark.changes
    def test_take_lock(self, recover: Recover) -> None:
        """The run that left it is not at work any more, nor is another one."""
        recover.take_lock().check()

    @pytest.mark.changes
    def test_bring_to_an_end(self, recover: Recover) -> None:
        """Finish what can be finished, undo the rest."""
        recover.bring_to_an_end()

    @pytest.mark.changes
    def test_application_is_whole(self, recover: Recover, databases: frozenset[str]) -> None:
        """The live database takes connections, the services run, every file is there, nothing is unfinished.

        Where none was live before the run that was killed, there is none again.
        """
        recover.check_application()
        assert (recover.target.database.name in databases) == recover.is_live
