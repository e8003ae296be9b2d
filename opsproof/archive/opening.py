"""Opening a backup, whoever made it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opsproof.archive.foreign.directory import CENTRAL, END, END_64, LOCATOR, CentralDirectory
from opsproof.archive.foreign.recognising import open_foreign
from opsproof.archive.manifest import Sidecar, opened_sidecar
from opsproof.archive.names import SEALED
from opsproof.archive.reading.backup import OpenedBackup, OpenedPlain, open_bundle
from opsproof.archive.reading.declared import MANIFEST, MEMBERS, TABLES
from opsproof.archive.sealing.seal import MAGIC
from opsproof.errors import ArchiveError

# The last members of a bundle, in their order.
LAST = (TABLES, MEMBERS, MANIFEST)
RECORD = re.compile(rb"PK\x01\x02.{42}(" + b"|".join(re.escape(name.encode()) for name in LAST) + b")", re.DOTALL)
# Bytes of their records, with all that an extra field may hold, and of the end records of zip64.
MOST_RECORDS = len(LAST) * (CENTRAL.size + 28) + len("".join(LAST))
MOST_END = END_64.size + LOCATOR.size + END.size


def open_backup(path: Path, sidecar: Sidecar | None, dump: Path, filestore_database: str | None = None) -> OpenedBackup:
    """Open a backup and unpack its dump, once all of it was read to its end.

    Args:
        path: The file, decrypted (see `fetch`), or a folder of somebody else's format.
        sidecar: What stands beside it in the store, whose SHA-256 the whole file has; None where it has none: then the
            file tells by itself what it is, and every member of it is read here.
        dump: The new file that the dump is written to.
        filestore_database: The folder in `filestore/` that is meant, where somebody else's backup has several.

    Raises:
        ArchiveError: It is not what it says, is broken, or holds what nobody should unpack; then there is no dump.
    """
    _refuse_encrypted(path)
    sidecar = opened_sidecar(sidecar) if sidecar is not None else None
    if sidecar is not None and sidecar.manifest.dump is None:
        plain = OpenedPlain(path, sidecar)
        with _nothing_left_after_an_error(plain, dump):
            plain.extract_database(dump)
        return plain
    if sidecar is None and not _is_ours(path):
        foreign = open_foreign(path, filestore_database)
        with _nothing_left_after_an_error(foreign, dump):
            foreign.verify()
            foreign.extract_database(dump)
        return foreign
    bundle = open_bundle(path, sidecar)
    with _nothing_left_after_an_error(bundle, dump):
        if sidecar is not None:
            bundle.extract_database(dump)
        else:
            bundle.verify(dump)
    return bundle


@contextmanager
def _nothing_left_after_an_error(backup: OpenedBackup, dump: Path) -> Iterator[None]:
    # What has the name already is somebody else's.
    is_new = not os.path.lexists(dump)
    try:
        yield
    except BaseException:
        backup.close()
        if is_new:
            dump.unlink(missing_ok=True)
        raise


def _refuse_encrypted(path: Path) -> None:
    try:
        with path.open("rb") as file:
            beginning = file.read(len(MAGIC))
    except OSError:
        return  # a folder; what cannot be read is told of where it is
    if beginning == MAGIC:
        raise ArchiveError(
            f"{path} is encrypted",
            expected="what it decrypts to",
            found=MAGIC.decode().strip(),
            kept="nothing was changed",
            hint=f"age -d -i key.txt {path} > {path.with_suffix('') if path.suffix == SEALED else f'{path}.opened'}",
        )


def _is_ours(path: Path) -> bool:
    """Tell whether a file is one of our bundles, whatever else is wrong with it.

    The listings, which only our bundles hold, and the manifest have the last three records of the central directory: so
    its end tells, however many members there are. One of the three may be damaged.
    """
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            begins, end = _tail_of(path, file.fileno())
            file.seek(begins)
            tail = file.read(end - begins)
    except OSError:
        return False
    return len({found[1] for found in RECORD.finditer(tail)}) >= len(LAST) - 1


def _tail_of(path: Path, descriptor: int) -> tuple[int, int]:
    """Return where the last records of a zip's central directory are, and where they end."""
    try:
        # That of a zip inside of this one is not looked at.
        directory = CentralDirectory(path, descriptor)
    except ArchiveError:
        # Whatever is wrong with its end, the records before that may be there.
        size = path.stat().st_size
        return max(0, size - MOST_RECORDS - MOST_END), size
    end = directory.start + directory.length
    return max(directory.start, end - MOST_RECORDS), end
