"""Deploy: `pytest actions/test_deploy.py --env=staging --release=SOURCE`."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from opsproof.plugin.run import Run
from opsproof.procedures.deploy.procedure import Deploy
from opsproof.system.postgres.server import Connection


@pytest.mark.procedure
class TestDeploy:
    """Bring a release to its host: with a proven backup before, and a way back after.

    Run it to deploy. The application works until the release is uploaded, checked and ready; then it is down for its
    own stop and start, and for the update of its database where there is one to be made. A deploy that fails any step
    up to the one that says that the release is live leaves code and data as they were.
    """

    def test_choose_release(self, deploy: Deploy) -> None:
        """The release can be read, and holds nothing that nobody should unpack."""
        assert deploy.choose_release().files

    def test_server_answers(self, deploy: Deploy) -> None:
        """The server answers; a database that is not there yet will be made."""
        assert deploy.find_server().system_identifier

    def test_nothing_is_unfinished(self, deploy: Deploy) -> None:
        """No earlier procedure of this target was left halfway."""
        deploy.require_nothing_unfinished()

    def test_nothing_is_in_the_way(self, deploy: Deploy, run: Run) -> None:
        """The host's folders, its room and its services are as the deploy needs them; this is the plan."""
        assert not any(finding.blocks for finding in deploy.examine())
        run.plans[deploy.target.name] = deploy.plan()

    def test_confirmed(self, deploy: Deploy) -> None:
        """A protected environment is deployed to only where its target was named."""
        deploy.require_confirmation()

    @pytest.mark.changes
    def test_take_lock(self, deploy: Deploy) -> None:
        """No other run is at work on this target."""
        deploy.take_lock().check()

    @pytest.mark.changes
    def test_take_backup(self, deploy: Deploy) -> None:
        """What is live is backed up, and that is proven, before anything changes."""
        backup = deploy.take_backup()
        assert not backup or deploy.store.exists(f"{backup}.manifest.json")

    @pytest.mark.changes
    def test_upload(self, deploy: Deploy, host: Host) -> None:
        """The release is on the host, beside the live one, with every byte that was sent."""
        assert host.file(str(deploy.upload() / "REVISION")).exists

    @pytest.mark.changes
    def test_after_update_code(self, deploy: Deploy) -> None:
        """The hooks that follow the upload pass."""
        assert len(deploy.run_hooks("after_update_code")) == len(deploy.hooks.of("after_update_code"))

    @pytest.mark.changes
    def test_link_shared(self, deploy: Deploy, host: Host) -> None:
        """What releases share is linked into this one."""
        path = deploy.releases.path(deploy.release)
        assert all(host.file(f"{path}/{one.rstrip('/')}").is_symlink for one in deploy.link_shared())

    @pytest.mark.changes
    def test_before_symlink(self, deploy: Deploy) -> None:
        """The hooks that precede the flip pass."""
        assert len(deploy.run_hooks("before_symlink")) == len(deploy.hooks.of("before_symlink"))

    @pytest.mark.changes
    def test_plan_update(self, deploy: Deploy) -> None:
        """What the release changes in the database is known, and was tried where the inventory wants that."""
        assert deploy.plan_update() == deploy.pending

    @pytest.mark.changes
    def test_stop_services(self, deploy: Deploy) -> None:
        """The services are stopped: the outage begins."""
        # Each was seen to be down: to ask again would only make the outage longer.
        assert deploy.stop_services() == len(deploy.exchange.services)

    @pytest.mark.changes
    def test_update_database(self, deploy: Deploy) -> None:
        """A copy of the database was updated and is live; without anything to update the database was not touched."""
        assert deploy.update_database() == deploy.pending

    @pytest.mark.changes
    def test_flip(self, deploy: Deploy) -> None:
        """The link `current` leads to the release, by one rename."""
        assert deploy.flip() == deploy.release

    @pytest.mark.changes
    def test_start_services(self, deploy: Deploy) -> None:
        """The services are started; that they stay up is seen once people can work again."""
        assert deploy.start_services() == len(deploy.exchange.services)

    @pytest.mark.changes
    def test_application_is_healthy(self, deploy: Deploy) -> None:
        """The application answers: the outage ends. The services keep running."""
        assert deploy.wait_for_health().total >= 0
        assert all(service.is_running() for service in deploy.exchange.services)

    @pytest.mark.changes
    def test_application_finds_its_data(self, deploy: Deploy, database: Connection) -> None:
        """Files, tables, relations and the inventory's own queries are as they must be."""
        deploy.validate()
        assert database.execute("SELECT current_database()").fetchone() == (deploy.target.database.name,)

    @pytest.mark.changes
    def test_release_is_live(self, deploy: Deploy) -> None:
        """Say so, in the ledger and on the server: from now on only --type=release goes back."""
        assert deploy.releases.look().current == deploy.keep().release

    @pytest.mark.changes
    def test_prune(self, deploy: Deploy) -> None:
        """The oldest releases are gone, but none that somebody may have to go back to."""
        deploy.prune()
        assert not deploy.releases.look().dangles

    @pytest.mark.changes
    def test_after_cleanup(self, deploy: Deploy) -> None:
        """The hooks that end a deploy pass; where one fails, the release stays live, for people work with it."""
        assert len(deploy.run_hooks("after_cleanup")) == len(deploy.hooks.of("after_cleanup"))
