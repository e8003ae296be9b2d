"""Where an application's files are in somebody else's backup: below filestore/, or below filestore/{database}/."""

from __future__ import annotations

from dataclasses import dataclass

from opsproof.archive.foreign.source import Source
from opsproof.archive.paths import FILESTORE, KEPT, shown
from opsproof.errors import ArchiveError
from opsproof.odoo import CHECKLIST_FOLDER, is_attachment_name


@dataclass(frozen=True)
class FoundFilestore:
    """The prefix of the files' names, None where there are none, and what cannot be verified of them."""

    prefix: str | None
    files: int = 0
    unverified: tuple[str, ...] = ()


def find_filestore(source: Source, wanted: str | None, database: str) -> FoundFilestore:
    """Find the one filestore that is meant.

    Args:
        source: The backup.
        wanted: The database's folder in filestore/, as somebody says; None if nobody does.
        database: The name of the database that the backup was made of, as far as it says; or empty.

    Raises:
        ArchiveError: There are several, and nothing says which; or the one that is wanted is not there.
    """
    # The folders directly in filestore/, and those that hold attachments as a filestore itself does.
    folders: set[str] = set()
    databases: set[str] = set()
    is_direct = False
    count = 0
    for entry in source.entries():
        if not entry.path.startswith(FILESTORE):
            continue
        count += 1
        path = entry.path.removeprefix(FILESTORE)
        folder, _, rest = path.partition("/")
        if rest:
            folders.add(folder)
        if is_attachment_name(path):
            is_direct = True
        elif is_attachment_name(rest) and folder != CHECKLIST_FOLDER:
            databases.add(folder)
    if not count:
        return FoundFilestore(None)
    return _count(source, FILESTORE + _choose(wanted, database, folders, databases, is_direct=is_direct))


def _choose(wanted: str | None, database: str, folders: set[str], databases: set[str], *, is_direct: bool) -> str:
    """Return the folder in filestore/ that is meant, with a `/` after it; empty for filestore/ itself."""
    if wanted is not None and wanted in folders:
        return f"{wanted}/"
    if not databases:
        # Files of another application: only their folder's name can tell.
        return f"{database}/" if wanted is None and folders == {database} and not is_direct else ""
    if wanted is None and not is_direct:
        if database in databases:
            return f"{database}/"
        if len(databases) == 1:
            return f"{min(databases)}/"
    names = ", ".join(map(shown, sorted(databases)[:10]))
    raise ArchiveError(
        "Nothing says which filestore of the backup is meant",
        expected=f"filestore/{shown(wanted)}/" if wanted is not None else "the files of one database",
        found=f"folders of {len(databases)} database(s): {names}" + (", and files beside them" if is_direct else ""),
        kept=KEPT,
        hint="name the one that is meant, by its folder's name",
    )


def _count(source: Source, prefix: str) -> FoundFilestore:
    files = others = beside = 0
    for entry in source.entries():
        if not entry.path.startswith(FILESTORE):
            continue
        if not entry.path.startswith(prefix):
            beside += 1
            continue
        files += 1
        path = entry.path.removeprefix(prefix)
        if not (is_attachment_name(path) or (path.startswith(f"{CHECKLIST_FOLDER}/") and not entry.size)):
            others += 1
    unverified = []
    if others:
        unverified.append(
            f"{others:,} file(s) of its filestore are not named by their SHA-1: what they held is unknown."
        )
    if beside:
        unverified.append(f"{beside:,} file(s) of other databases in its filestore were passed over.")
    return FoundFilestore(prefix, files, tuple(unverified))
