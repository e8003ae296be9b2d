"""Opening a backup, whoever made it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from opsproof.archive.foreign import open_foreign
from opsproof.archive.manifest import Sidecar
from opsproof.archive.reading import OpenedBackup, OpenedPlain, open_bundle

LISTINGS = {"members.jsonl", "tables.jsonl"}


def open_backup(path: Path, sidecar: Sidecar | None, dump: Path, filestore_database: str | None = None) -> OpenedBackup:
    """Open a backup and unpack its dump, once all of it was read to its end.

    Args:
        path: The file, or a folder of somebody else's format.
        sidecar: What stands beside it in the store, whose SHA-256 the whole file has; None where it has none: then the
            file tells by itself what it is, and every member of it is read here.
        dump: The new file that the dump is written to.
        filestore_database: The folder in `filestore/` that is meant, where somebody else's backup has several.

    Raises:
        ArchiveError: It is not what it says, is broken, or holds what nobody should unpack.
    """
    if sidecar is not None and sidecar.manifest.dump is None:
        plain = OpenedPlain(path, sidecar)
        with _closed_after_an_error(plain):
            plain.extract_database(dump)
        return plain
    if sidecar is None and not _is_ours(path):
        foreign = open_foreign(path, filestore_database)
        with _closed_after_an_error(foreign):
            foreign.verify()
            foreign.extract_database(dump)
        return foreign
    bundle = open_bundle(path, sidecar)
    with _closed_after_an_error(bundle):
        if sidecar is not None:
            bundle.extract_database(dump)
        else:
            bundle.verify(dump)
    return bundle


@contextmanager
def _closed_after_an_error(backup: OpenedBackup) -> Iterator[None]:
    try:
        yield
    except BaseException:
        backup.close()
        raise


def _is_ours(path: Path) -> bool:
    """Tell whether a file is one of our bundles by the listings that only they hold, whatever else is wrong with it."""
    try:
        with ZipFile(path) as archive:
            return LISTINGS.issubset(archive.namelist())
    except (BadZipFile, OSError, NotImplementedError):
        return False
