"""Odoo's own update of a database: `-u` of the modules that differ between two releases, on a side database."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import PurePosixPath

from opsproof.errors import CommandFailed, ProgramMissing, ProofError
from opsproof.procedures.commands import release_command
from opsproof.procedures.deploy.odooaddons import Addons
from opsproof.procedures.deploy.odoomodules import manifests_of, modules_of
from opsproof.procedures.deploy.odooversions import bare, is_older, read_versions, series_of
from opsproof.procedures.restore.odoocommand import PROGRAMS, account_of
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.server import connect, own_search_path
from opsproof.system.releases.package import PackedFile
from opsproof.target import Target

INSTALLED = ("installed", "to upgrade")
LAST_LINES = 20
# Where a release with Odoo itself has its command.
IN_A_RELEASE = ("odoo-bin", "odoo", "odoo/odoo-bin")
# Of the live database's folder of files, and of the link that leads there: an Odoo makes no files behind a link that
# leads nowhere.
_LINK = '[ -d "$0" ] || { mkdir -p -- "$0" && echo made; } && ln -sfnT -- "${0##*/}" "$1"'
_UNLINK = 'rm -f -- "$1" && { [ -z "$2" ] || rmdir -- "$0" 2>/dev/null || true; }'
# What a crash leaves half done says so here.
_UNDONE = "SELECT name, state FROM ir_module_module WHERE state LIKE 'to %' ORDER BY 1"


class OdooUpdate:
    """An Odoo.

    Args:
        target: Whose.
        host: Where it runs.
        code: The release's folder, its files, and those of the release that is live.
        program: Odoo's command; empty looks for it, in the release first.
        exists: Whether there is a database.
    """

    name = "odoo"

    def __init__(
        self,
        target: Target,
        host: Host,
        code: tuple[PurePosixPath, Mapping[str, PackedFile], Mapping[str, PackedFile]],
        program: str,
        *,
        exists: bool = True,
    ) -> None:
        self._target = target
        self._host = host.as_user(account_of(target, host))
        self._path, files, before = code
        self._program = program
        self._manifests = manifests_of(files)
        new, old = modules_of(files), modules_of(before)
        self._changed = {name for name, digest in new.items() if old.get(name) != digest}
        self._gone = set(old) - set(new)
        self._wanted: tuple[str, ...] = () if exists else ("base",)

    def pending(self) -> tuple[str, ...]:
        """Return the installed modules that are others in this release, or that the database has in another version.

        Raises:
            DatabaseError: The database does not answer.
            ProofError: Odoo has never been at work in it.
            HostError: The release cannot be read.
        """
        installed = self._installed(self._target.database.name)
        others = self._others(installed, installed)
        self._wanted = tuple(name for name in installed if name in self._changed or name in others)
        return self._wanted

    def differing(self) -> tuple[str, ...]:
        """Return the installed modules of which any file is another than in the release that is live.

        Raises:
            DatabaseError: The database does not answer.
            ProofError: Odoo has never been at work in it.
        """
        return tuple(name for name in self._installed(self._target.database.name) if name in self._changed)

    def examine(self) -> None:
        """Look whether Odoo finds the modules that it is to update, and those that it has had from the live release.

        Raises:
            ConfigurationError: odoo.conf does not lead to the release.
            ProofError: The release lacks modules that are installed, or has older ones: Odoo knows no way down.
            HostError: The host has no Odoo, or cannot be asked.
        """
        installed = self._installed(self._target.database.name)
        self.require_no_older(installed)
        if self._wanted:
            self._addons.require(self._wanted)
        if gone := [name for name in installed if name in self._gone]:
            self._addons.require_elsewhere(gone)

    def require_no_older(self, installed: Mapping[str, str | None]) -> None:
        """Refuse a database, by the modules that it has and their versions, that is ahead of the release.

        Raises:
            ProofError: It has newer ones.
            HostError: The release cannot be read.
        """
        series, others = series_of(installed.get("base")), self._others(installed, installed)
        older = [
            name for name, version in others.items() if is_older(bare(version, series), bare(installed[name], series))
        ]
        if older:
            raise ProofError(
                "The database has newer modules than the release, and Odoo has no way down",
                expected=", ".join(f"{name} {installed[name]} or newer" for name in older),
                found=", ".join(f"{name} {others[name]}" for name in older),
                kept="what is live is as it was",
                hint=f"{release_command(self._target)} --backup=ID   goes back, with the data of before; else give the"
                " modules a newer version",
            )

    def initial(self) -> tuple[str, ...]:
        """Return that the module base is installed."""
        return ("base",)

    def apply(self, database: str) -> None:
        """Update the modules that `pending` has found.

        Raises:
            CommandFailed: Odoo said no.
            ProofError: A module is left half done, or has not the release's version.
        """
        self._run(database, "-u", self._wanted)
        installed = self._installed(database)
        if others := self._others(installed, self._wanted):
            raise ProofError(
                "Odoo has not updated all modules to the release's",
                expected=", ".join(f"{name} {version}" for name, version in others.items()),
                found=", ".join(f"{name} {installed[name]}" for name in others),
                kept="what is live is as it was",
                hint="see whether another folder of addons_path, before the release's, has a module of this name",
            )

    def initialise(self, database: str) -> None:
        """Install `base` in an empty database."""
        self._run(database, "-i", ("base",))

    def _installed(self, database: str) -> dict[str, str | None]:
        """Return the modules that a database has, and in which version."""
        with connect(self._target.database, database=database) as connection, own_search_path(connection):
            row = connection.execute("SELECT to_regclass('ir_module_module') IS NOT NULL").fetchone()
            if row is None or not row[0]:
                raise ProofError(
                    f"Odoo has never been at work in {database!r}",
                    expected="a database of Odoo's, or none: then a deploy makes it",
                    found="no table ir_module_module",
                    kept="what is live is as it was",
                    hint=f"psql -d {shlex.quote(database)} -c '\\dt *.*'   shows what is in it;"
                    f" where that is nothing of yours: dropdb {shlex.quote(database)}",
                )
            query = "SELECT name, latest_version FROM ir_module_module WHERE state = ANY(%s) ORDER BY 1"
            return dict(connection.execute(query, (list(INSTALLED),)).fetchall())

    def _others(self, installed: Mapping[str, str | None], names: Collection[str]) -> dict[str, str]:
        """Return those modules that a database has in another version than the release, and the release's."""
        series = series_of(installed.get("base"))
        manifests = {name: paths for name, paths in self._manifests.items() if name in names and name in installed}
        versions = read_versions(self._host, self._path, manifests)
        return {
            name: version
            for name, version in versions.items()
            if bare(installed[name], series) != bare(version, series)
        }

    def _run(self, database: str, verb: str, modules: tuple[str, ...]) -> None:
        command = [self._find_program(), "-d", database, verb, ",".join(modules)]
        # An empty logfile is stderr: what odoo.conf names would keep to itself why it failed.
        command += ["--stop-after-init", "--no-http", "--max-cron-threads=0", "--logfile=", "--log-level=info"]
        command += self._configuration()
        address = self._target.database
        secret = address.password if self._target.odoo_conf is None else None
        environ = {"PGPASSWORD": secret.reveal()} if secret else {}
        with self._files_of(database):
            done = self._host.run(
                "sh", "-c", 'cd -- "$0" && exec "$@"', str(self._path), *command,
                env=environ, timeout=self._target.step_timeout, accept=range(256),
            )  # fmt: skip
        if done.status != 0:
            tail = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-LAST_LINES:])
            raise CommandFailed(
                f"Odoo could not {'update' if verb == '-u' else 'install'} {', '.join(modules)}",
                expected="exit status 0",
                found=tail or f"exit status {done.status}",
                kept="what is live is as it was",
                hint="mend the release, and deploy it again; `deploy: {rehearse: true}` in the inventory finds such a"
                f" thing out while people still work\nwhat was run: {shlex.join(command)}",
            )
        with connect(self._target.database, database=database) as connection, own_search_path(connection):
            undone = connection.execute(_UNDONE).fetchall()
        if undone:
            raise ProofError(
                "Odoo has left modules half done",
                expected="every module installed or not",
                found=", ".join(f"{name}: {state}" for name, state in undone),
                kept="what is live is as it was",
                hint="look at Odoo's log of the update",
            )

    def _configuration(self) -> list[str]:
        """Return odoo.conf, with the release in the place of `current` wherever addons are looked for.

        Without an odoo.conf, where the database is: Odoo would make one of this name wherever it believes it to be.
        """
        if self._target.odoo_conf is None:
            address = self._target.database
            named = {"--db_host": address.host, "--db_port": str(address.port), "--db_user": address.user}
            return [f"{option}={value}" for option, value in named.items() if value]
        folders = self._addons.folders()
        return ["-c", self._target.odoo_conf, *([f"--addons-path={','.join(folders)}"] if folders else [])]

    @cached_property
    def _addons(self) -> Addons:
        return Addons(self._target, self._host, self._path, self._find_program())

    def _find_program(self) -> str:
        if self._program:
            return self._program
        for name in IN_A_RELEASE:
            if self._host.is_executable(str(self._path / name)):
                return str(self._path / name)
        program = next((name for name in PROGRAMS if self._host.find_program(name)), None)
        if program is None:
            raise ProgramMissing(
                "odoo not found",
                expected="odoo-bin in the release, or odoo on the host's PATH",
                found="neither",
                kept="what is live is as it was",
                hint="odoo_bin: /path/to/odoo-bin in the inventory; or `deploy: {database: none}`",
            )
        return program

    @contextmanager
    def _files_of(self, database: str) -> Iterator[None]:
        """Let the side database have the live one's files: they are only ever added to."""
        settings = self._target.filestore
        if settings is None or settings.path.name != self._target.database.name:
            yield
            return
        folders = str(settings.path), str(settings.path.parent / database)
        made = self._host.run("sh", "-c", _LINK, *folders).stdout.strip()
        try:
            yield
        finally:
            self._host.run("sh", "-c", _UNLINK, *folders, made)


def remove_link(target: Target, host: Host, database: str) -> None:
    """Remove the way to the files that a killed run has given a side database."""
    settings = target.filestore
    if settings is not None and target.deploy_folder:
        link = str(settings.path.parent / database)
        host.run("sh", "-c", '[ ! -L "$0" ] || rm -f -- "$0"', link)
