"""Plain SQL in pieces of any size, as a check of it reads them."""

from __future__ import annotations

from collections.abc import Iterator

from opsproof.archive.reading.plainsql import check_plain_sql
from opsproof.errors import ArchiveError

FOOTER = b"\n--\n-- PostgreSQL database dump complete\n--\n\n"


def cut(data: bytes, size: int) -> Iterator[bytes]:
    """Cut a text into pieces of so many bytes."""
    return (data[at : at + size] for at in range(0, len(data), size))


def is_refused(data: bytes, size: int = 1 << 18) -> bool:
    """Tell whether a text is refused, as it has to be: with a hint, and nothing changed."""
    try:
        check_plain_sql(cut(data, size))
    except ArchiveError as error:
        told = error
    else:
        return False
    assert told.kept == "nothing was changed"
    assert told.hint
    return True
