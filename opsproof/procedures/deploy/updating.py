"""What brings a database from one release to the next: Alembic's revisions, or Odoo's modules; or nothing does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Protocol

from opsproof.errors import MigrationError, ProofError
from opsproof.procedures.commands import release_command
from opsproof.procedures.deploy.odooupdating import OdooUpdate
from opsproof.system.alembic.finding import inis_in
from opsproof.system.alembic.migrations import Migrations, Planned, place_of
from opsproof.system.hosts.host import Host
from opsproof.system.releases.package import PackedFile
from opsproof.target import Target

SESSION = "opsproof deploy"


@dataclass(frozen=True)
class Code:
    """A release as what updates a database sees it.

    Attributes:
        path: Its folder.
        files: What is in it.
        before: What is in the release that is live; empty where there is none.
    """

    path: PurePosixPath
    files: Mapping[str, PackedFile]
    before: Mapping[str, PackedFile]


class Update(Protocol):
    """What updates a database."""

    name: str

    def pending(self) -> tuple[str, ...]:
        """Return what would be done to the live database, in words; nothing where it is up to date."""
        ...

    def examine(self) -> None:
        """Look whether what `pending` has found can be done, and whether the release goes with the live database."""
        ...

    def initial(self) -> tuple[str, ...]:
        """Return what is done where there is no database yet."""
        ...

    def apply(self, database: str) -> None:
        """Do it, to a side database, and see that it came to pass."""
        ...

    def initialise(self, database: str) -> None:
        """Fill an empty database."""
        ...


class NoUpdate:
    """An application whose database nothing of ours updates."""

    name = "none"

    def pending(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def examine(self) -> None:
        """Look at nothing."""

    def initial(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def apply(self, database: str) -> None:
        """Do nothing."""
        del database

    def initialise(self, database: str) -> None:
        """Do nothing."""
        del database


class AlembicUpdate:
    """An application whose schema Alembic keeps, by the release's own scripts and interpreter.

    Raises:
        MigrationError: The release has no alembic.ini, or more than one.
    """

    name = "alembic"

    def __init__(self, target: Target, host: Host, path: PurePosixPath) -> None:
        self._target = target
        self.migrations = migrations_of(target, host, path)

    def pending(self) -> tuple[str, ...]:
        """Return the revisions that the database lacks, the oldest first.

        Raises:
            MigrationError: env.py fails, or the database has revisions that the release does not know.
        """
        planned = self._look(self._target.database.name)
        unknown = [one for one in planned.heads if one not in planned.history.by_id]
        if unknown:
            raise MigrationError(
                "The database is at a revision that the release does not know",
                expected="a release that has all revisions that the database has been through",
                found=f"{', '.join(unknown)}, which no script of {self.migrations.ini} has",
                kept="what is live is as it was",
                hint=f"deploy a newer release; or go back, with the database: {release_command(self._target)}",
            )
        return missing_of(planned)

    def examine(self) -> None:
        """Look at nothing more: `pending` has asked Alembic itself."""

    def initial(self) -> tuple[str, ...]:
        """Return that all revisions are applied."""
        return ("all revisions, on an empty database",)

    def apply(self, database: str) -> None:
        """Apply them, and look where the database is then.

        Raises:
            MigrationError: One failed.
            ProofError: The database is not at the heads of the release.
        """
        place = place_of(self._target.database, database)
        self.migrations.upgrade(place, ["heads"], settings={"application_name": SESSION})
        left = missing_of(self._look(database))
        if left:
            raise ProofError(
                f"{database!r} is not at the heads of the release",
                expected="no revision that is missing",
                found=", ".join(left),
                kept="what is live is as it was",
                hint="see what env.py does: it may leave revisions out",
            )

    def initialise(self, database: str) -> None:
        """Apply all of them to an empty database."""
        self.apply(database)

    def _look(self, database: str) -> Planned:
        return self.migrations.plan(place_of(self._target.database, database))


def require_same_kind(target: Target, host: Host, update: Update, live: PurePosixPath) -> None:
    """Refuse a release that nothing seems to update the database of, where the live one has migrations.

    Args:
        target: Whose.
        host: Where its releases are.
        update: Of the release.
        live: The folder of the live release.

    Raises:
        MigrationError: It has lost them: a folder that was left out, or another project.
    """
    if update.name != "none" or target.deploy.database is not None or target.odoo_conf is not None:
        return
    if found := inis_in(host, str(live)):
        raise MigrationError(
            "The release has no alembic.ini, and the one that is live has",
            expected="migrations in both, or the inventory to say that nothing updates the database",
            found=f"{', '.join(found)}, and none in the release",
            kept="what is live is as it was",
            hint="look whether the release is whole; or `deploy: {database: none}` in the inventory",
        )


def missing_of(planned: Planned) -> tuple[str, ...]:
    """Return the revisions of the scripts that a database lacks, the oldest first."""
    there = planned.history.applied(planned.heads)
    return tuple(one.shown for one in reversed(planned.history.revisions) if one.id not in there)


def migrations_of(target: Target, host: Host, path: PurePosixPath) -> Migrations:
    """Return the migrations of a release: what the inventory names below `current` is looked for in it.

    Raises:
        MigrationError: It has no alembic.ini, or more than one.
    """
    settings = target.migrations
    ini = None if settings.ini is None else PurePosixPath(within(target, path, str(settings.ini)))
    if ini is None:
        found = inis_in(host, str(path))
        if len(found) != 1:
            raise MigrationError(
                "The release has no alembic.ini" if not found else "The release has more than one alembic.ini",
                expected="one, or the inventory to say which",
                found=", ".join(found) or f"none in {path}, and none right below it",
                kept="what is live is as it was",
                hint=f"alembic_ini: {target.deploy_folder}/current/alembic.ini   or `deploy: {{database: none}}`",
            )
        ini = PurePosixPath(found[0])
    python = None if settings.python is None else within(target, path, settings.python)
    return Migrations(host, replace(target, migrations=replace(settings, ini=ini, python=python)))


def within(target: Target, path: PurePosixPath, named: str) -> str:
    """Return what the inventory names below `current` as it is in a release; anything else as it stands."""
    current = f"{target.deploy_folder}/current/"
    return f"{path}/{named.removeprefix(current)}" if named.startswith(current) else named


def update_of(target: Target, host: Host, code: Code, *, exists: bool = True) -> Update:
    """Return what updates a target's database: what the inventory says, or what the target has.

    Raises:
        MigrationError: The release has not the alembic.ini that it needs.
    """
    kind = target.deploy.database
    if kind is None and target.migrations.ini is None and target.odoo_conf is not None:
        kind = "odoo" if target.odoo_bin != "none" else "none"
    if kind is None:
        kind = "alembic" if target.migrations.ini is not None or inis_in(host, str(code.path)) else "none"
    if kind == "alembic":
        return AlembicUpdate(target, host, code.path)
    if kind == "odoo":
        program = within(target, code.path, target.odoo_bin) if target.odoo_bin else ""
        return OdooUpdate(target, host, (code.path, code.files, code.before), program, exists=exists)
    return NoUpdate()
