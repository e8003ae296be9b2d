"""Whether a backup goes with a release, as far as its manifest tells; and which one does."""

from __future__ import annotations

from collections.abc import Sequence

from opsproof.archive.catalogue.choice import Choice
from opsproof.errors import ProofError
from opsproof.procedures.deploy.odooupdating import OdooUpdate
from opsproof.procedures.deploy.updating import AlembicUpdate, Update
from opsproof.system.alembic.history import History
from opsproof.system.alembic.migrations import NOWHERE
from opsproof.system.releases.ledger import Entry


def require_fit(update: Update, choice: Choice, release: str, hint: str) -> None:
    """Refuse a backup of data that a release does not know what to do with.

    Args:
        update: Of the release.
        choice: The backup.
        release: The release's name.
        hint: What to type instead.

    Raises:
        ProofError: It has revisions that the release does not know, or lacks some; or it has newer modules.
        MigrationError: The release's migrations cannot be asked.
    """
    manifest = choice.sidecar.manifest if choice.sidecar else None
    if manifest is None:
        return
    # A backup without revisions may be one at base, or one whose revisions stand in a table of another name.
    if isinstance(update, AlembicUpdate) and manifest.alembic_revisions:
        heads = manifest.alembic_revisions
        wrong = _misfits(update.migrations.plan(NOWHERE, heads=heads).history, heads)
        if wrong:
            raise ProofError(
                f"{choice.id} does not go with release {release}",
                expected="a backup of a database that was at the release's own revisions",
                found=wrong,
                kept="nothing was changed",
                hint=hint,
            )
    elif isinstance(update, OdooUpdate) and manifest.odoo is not None:
        update.require_no_older(manifest.odoo.modules)


def backup_of(ledger: Sequence[Entry], release: str) -> str:
    """Return the id of the newest backup that was taken while a release was live; empty where there is none."""
    return next((one.backup for one in reversed(ledger) if one.previous == release and one.backup), "")


def _misfits(history: History, heads: Sequence[str]) -> str:
    unknown = [one for one in heads if one not in history.by_id]
    if unknown:
        return f"{', '.join(unknown)}, which the release does not know"
    there = history.applied(heads)
    missing = [one.shown for one in reversed(history.revisions) if one.id not in there]
    return f"it lacks {', '.join(missing)}" if missing else ""
