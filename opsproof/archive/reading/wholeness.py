"""Reading a bundle's members to their end, once each, the plain SQL by whoever wants to know what stands in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from opsproof.archive.manifest import Member
from opsproof.archive.paths import FILESTORE, KEPT, shown
from opsproof.archive.reading import declared
from opsproof.archive.reading.backup import OpenedBundle
from opsproof.archive.reading.declared import MEMBERS
from opsproof.archive.reading.zipend import AGAIN
from opsproof.archive.reading.zipread import ZipMember, ZipReader
from opsproof.errors import ArchiveError

Found = TypeVar("Found")


def read_members(bundle: OpenedBundle, read_sql: Callable[[Iterator[bytes]], Found]) -> tuple[int, Found]:
    """Read every member but the dump, which `open_backup` has read; return how many, and what the SQL's reader found.

    Args:
        bundle: The opened bundle.
        read_sql: Reads the plain SQL to its end.

    Raises:
        ArchiveError: A member is not what was backed up.
    """
    count = 0
    for _, chunks in bundle.open_files(lambda _: True):
        for _ in chunks:
            pass
        count += 1
    reader = ZipReader(bundle.path)
    try:
        others = {one.path: one for one in _listed(reader) if not one.path.startswith(FILESTORE)}
        zipped = reader.find(*others)
        dump = bundle.manifest.dump.path if bundle.manifest.dump else ""
        sql = bundle.manifest.sql.path
        for path, member in others.items():
            if path not in (dump, sql):
                for _ in _content(reader, member, zipped[path]):
                    pass
        return count + len(others), read_sql(_content(reader, others[sql], zipped[sql]))
    finally:
        reader.close()


def _listed(reader: ZipReader) -> Iterator[Member]:
    # Which members there are was compared, listing with zip, when the bundle was opened.
    for line in declared.split_lines(reader.content(reader.find(MEMBERS)[MEMBERS]), MEMBERS):
        yield declared.parse_line(Member, line, MEMBERS)


def _content(reader: ZipReader, member: Member, found: ZipMember) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for chunk in reader.content(found):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != member.sha256:
        raise ArchiveError(
            f"{shown(member.path)} in the bundle is not what was backed up",
            expected=f"SHA-256 {shown(member.sha256)}",
            found=digest.hexdigest(),
            kept=KEPT,
            hint=AGAIN,
        )
