"""The change from one release to another: what a deploy and a rollback to another release have in common.

Each public method is a step of `actions/test_deploy.py` and of `TestReleaseRollback` in `actions/test_rollback.py`,
or ends in one.
"""

from __future__ import annotations

from opsproof.errors import ConfigurationError
from opsproof.inspection.validation import Validated, validate
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.deploy.deployed import DeployOutcome
from opsproof.procedures.deploy.turnover import DEPLOYED, Turnover
from opsproof.procedures.outage.intervening import Intervening
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.lock import Lock
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import DatabaseFacts, Server, connect, describe_database, read_server
from opsproof.system.releases.layout import Layout, Releases
from opsproof.system.store import Store
from opsproof.target import Target


class Changing(Intervening):
    """One change of one target to another release; arguments are those of `Intervening`.

    Attributes:
        release: The name of the release that is to be current.
        orphans: The foreign keys that did not hold before either.
        outcome: None until it is kept.
    """

    exchange: Turnover
    server: Server
    facts: DatabaseFacts | None
    layout: Layout
    validated: Validated

    def __init__(self, target: Target, store: Store, journal: Journal) -> None:
        super().__init__(target, store, journal)
        self.releases = releases_of(target)
        self.release = ""
        self.outcome: DeployOutcome | None = None
        self.orphans: frozenset[str] = frozenset()
        # Whether a hook of this run may have changed the live database itself.
        self._has_hooked = False

    def find_server(self) -> Server:
        """Find out what server answers, with the live database on it.

        Raises:
            DatabaseError: Nothing answers, or there is no such database.
        """
        address = self.target.database
        with maintenance(address) as connection:
            self.server = read_server(connection)
        with connect(address) as connection:
            self.facts = describe_database(connection)
        return self.server

    def flip(self) -> str:
        """Let `current` lead to the release, in one rename. Return its name.

        Raises:
            OpsproofError: It cannot be done.
        """
        self.exchange.flip()
        return self.release

    def validate(self) -> Validated:
        """Look at what is live now: its files, its tables, its relations, and the answers to the inventory's queries.

        Raises:
            ProofError: Something does not hold.
        """
        self.exchange.check_application()
        self.validated = Validated(0, 0, 0)
        if self.has_to_validate:
            with connect(self.target.database) as connection:
                self.validated = validate(connection, self.target.validation, self.orphans)
        return self.validated

    @property
    def has_to_validate(self) -> bool:
        """Tell whether rows are looked at afterwards."""
        return True

    def _hold_releases(self, name: str) -> Lock:
        """Keep other runs off the database and off the releases, and clear away what killed ones have left there."""
        self._hold_lock(name)
        self._undo.enter_context(self.releases.held())
        for one in self.releases.clear_unfinished():
            self.journal.warn(f"release {one} of a run that was killed is removed")
        return self.lock

    def _begin(self, intent: Intent) -> None:
        """From here on `close` takes back whatever is changed."""
        self.exchange = Turnover(self.target, self.host, self.releases, intent, self.journal)
        self.exchange.had_live = self.facts is not None
        self._undo.callback(self._take_back)

    def _keep(self, changes: tuple[str, ...], hooks: tuple[str, ...] = ()) -> DeployOutcome:
        """Say that the release is live, in the ledger and on the server: nothing is taken back any more.

        Args:
            changes: What was done to the database, a line each.
            hooks: What passed.

        Raises:
            OpsproofError: It could not be written down.
        """
        self.exchange.keep()
        intent = self.exchange.intent
        said = intent.options
        self.outcome = DeployOutcome(
            event=said["event"],
            release=said["release"],
            revision=said["revision"],
            source=said["source"] or f"the release of {said['release']}",
            previous=said["previous"],
            backup=intent.safety,
            parked=intent.parked if self.exchange.has_swapped else "",
            changes=changes,
            outage=self.outage,
            hooks=hooks,
            phases=dict(self.journal.phases),
        )
        name = "deploy finished" if said["event"] == DEPLOYED else "release rolled back"
        self.journal.record(name, outcome={**vars(self.outcome), "outage": vars(self.outage)})
        return self.outcome

    def _take_back(self) -> None:
        if self.outcome is None:
            self._tell_undo(lambda: self.exchange.take_back(self.store, has_hooked=self._has_hooked))


def releases_of(target: Target) -> Releases:
    """Return the releases of a target.

    Raises:
        ConfigurationError: The inventory does not say where they are.
    """
    if not target.deploy_folder:
        raise ConfigurationError(
            f"Nothing says where the releases of {target.name} are",
            expected="deploy_folder, and deploy_user, of the host in the inventory",
            found="no deploy_folder",
            kept="nothing was changed",
            hint=f"give {target.name} `deploy_folder: /srv/app` and `deploy_user: app`",
        )
    return Releases(Host(target.connection).as_user(target.deploy_user or ""), target.deploy_folder)
