"""A shelf of two real backups for tests of their verification; a test may damage them as it likes."""

from __future__ import annotations

import json
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from zipfile import ZipFile

from opsproof.archive.catalogue.choosing import choose_backup
from opsproof.archive.catalogue.verdict import parse_verdict
from opsproof.archive.manifest import Manifest, Sidecar, to_json
from opsproof.archive.names import sidecar_name
from opsproof.inventory.loading import load_environment
from opsproof.journal import Journal
from opsproof.procedures.verify.procedure import Verification, Verify
from opsproof.system.store import Store, open_store
from opsproof.target import DirectoryStoreSettings, Target
from tests.lab.action_run import ActionRun, Project
from tests.lab.bundles import Piece, compose, sha256
from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import ENVIRONMENT, TARGET, Restorable, restorable

CHECK = "checks/test_backups.py"
STEP = "test_backups_are_whole"
PLUGIN = "opsproof.plugin.verbs.verifications"


@dataclass(frozen=True)
class Shelf:
    """An application, and its two backups in a folder of a test's own.

    Attributes:
        own: The application.
        folder: The store.
        older: The first backup.
        newer: The second one.
        target: What the inventory describes.
    """

    own: Restorable
    folder: Path
    older: Sidecar
    newer: Sidecar
    target: Target

    @property
    def project(self) -> Project:
        """Where its runs are begun."""
        return self.own.project

    @property
    def store(self) -> Store:
        """Its store."""
        return open_store(self.target.store, self.target.customer)

    def look(
        self, wanted: str = "latest", *, deep: bool = False, target: Target | None = None, store: Store | None = None
    ) -> tuple[Verification, ...]:
        """Verify in this very process."""
        return tuple(Verify(target or self.target, store or self.store, Journal(), wanted, deep=deep).verify())

    def verify(self, *arguments: str, **how: Any) -> ActionRun:
        """Run the checks to their end."""
        return self.project.run("-p", PLUGIN, *arguments, **{"action": CHECK, "env": ENVIRONMENT, **how})

    def copy(self) -> Shelf:
        """Return the same with a store of its own, which is what the inventory names from now on."""
        folder = self.folder.with_name(f"{self.own.project.store.name}-{secrets.token_hex(4)}")
        shutil.copytree(self.own.project.store, folder)
        self.own.set(backup_dir=str(folder))
        target = replace(self.target, store=DirectoryStoreSettings(folder))
        return replace(self, folder=folder, target=target)

    def bundle(self, backup: Sidecar) -> Path:
        """Return the file of a backup."""
        return self.folder / backup.name

    def sidecar(self, backup: Sidecar) -> Path:
        """Return the manifest beside a backup."""
        return self.folder / sidecar_name(backup.id)

    def verdicts(self) -> dict[str, list[str]]:
        """Return the verdicts of each backup, in the order of their times."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.folder.iterdir()):
            verdict = parse_verdict(path.name)
            if verdict is not None:
                found.setdefault(verdict[0], []).append(verdict[2])
        return found

    def record(self, backup: Sidecar) -> dict[str, Any]:
        """Return the last verdict on a backup as it is stored."""
        path = sorted(self.folder.glob(f"{backup.id}.verdict_*"))[-1]
        content: dict[str, Any] = json.loads(path.read_text())
        return content

    def chosen(self) -> str:
        """Return the backup that is taken for the latest."""
        return choose_backup(self.target, self.store, "latest", None).id

    def scratch_databases(self) -> list[str]:
        """Return the scratch databases that are left on the server."""
        return [name for name in self.own.databases() if "__scratch_" in name]


class Shelved(Protocol):
    """Where a backup's two files are."""

    def bundle(self, backup: Sidecar) -> Path: ...

    def sidecar(self, backup: Sidecar) -> Path: ...


def rebuild(
    shelf: Shelved,
    backup: Sidecar,
    change: Callable[[dict[str, Piece]], object],
    claim: Callable[[Manifest], Manifest] = lambda manifest: manifest,
) -> None:
    """Put another bundle in a backup's place, whose hashes all agree with one another: only its content is wrong.

    Args:
        shelf: Where it is.
        backup: Which.
        change: Changes the members, by their names.
        claim: Changes the manifest, which agrees with the members otherwise.
    """
    path = shelf.bundle(backup)
    own = ("members.jsonl", "manifest.json")
    with ZipFile(path) as bundle:
        members = {
            one.filename: Piece(one.filename, bundle.read(one), stat.S_ISLNK(one.external_attr >> 16))
            for one in bundle.infolist()
            if one.filename not in own
        }
    change(members)
    made: list[Manifest] = []

    def honest(composed: Manifest) -> bytes:
        real, files = backup.manifest, composed.filestore
        assert real.filestore is not None
        assert files is not None
        assert real.dump is not None
        tables = members["tables.jsonl"].data
        totals = {
            "members": composed.totals.members,
            "member_bytes": composed.totals.member_bytes,
            "members_sha256": composed.totals.members_sha256,
            "tables": len(tables.splitlines()),
            "rows": sum(json.loads(line)["rows"] for line in tables.splitlines()),
            "tables_sha256": sha256(tables),
        }
        changes = {
            "filestore": real.filestore.model_copy(update={"files": files.files, "bytes": files.bytes}),
            "dump": members[real.dump.path].member,
            "sql": members[real.sql.path].member,
            "totals": real.totals.model_copy(update=totals),
        }
        made.append(claim(real.model_copy(update=changes)))
        return to_json(made[0])

    compose(path, list(members.values()), manifest=honest)
    data = path.read_bytes()
    sidecar = backup.model_copy(update={"manifest": made[0], "bytes": len(data), "sha256": sha256(data)})
    shelf.sidecar(backup).write_bytes(to_json(sidecar))


@contextmanager
def running_shelf(server: PostgresServer) -> Iterator[Shelf]:
    """Make an application with two backups; all is gone after the block."""
    with restorable(server) as own:
        newer = own.take_backup()
        (target,) = load_environment(ENVIRONMENT, inventory=own.project.inventory, environ={}).targets
        yield Shelf(own, own.project.store, own.backup, newer, target)


__all__ = ["STEP", "TARGET", "Shelf", "rebuild", "running_shelf"]
