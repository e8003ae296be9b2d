"""What a bundle declares: its manifest and the lines of its listings, read without believing their writer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from opsproof.archive.manifest import FORMAT, FORMAT_VERSION, Manifest, Member, Sidecar, TableRecord
from opsproof.archive.paths import DISTRUST, KEPT, shown
from opsproof.errors import ArchiveError

MANIFEST, MEMBERS, TABLES, ROLES = "manifest.json", "members.jsonl", "tables.jsonl", "roles.sql"
# Half a million lost attachments fit into a manifest, two of the longest paths into a line.
MOST_MANIFEST = 1 << 26
MOST_LINE = 1 << 15
MOST_ROLES = 1 << 26

Record = TypeVar("Record", Member, TableRecord)


class _Stamp(BaseModel):
    format: str
    format_version: int
    opsproof_version: str = "unknown"


def read_manifest(data: bytes, name: str) -> Manifest:
    """Read the manifest of a bundle.

    Raises:
        ArchiveError: It is none, or of a newer format than this version reads.
    """
    try:
        stamp = _Stamp.model_validate_json(data)
        if stamp.format != FORMAT:
            raise declared_wrong(name, f"a manifest of format {FORMAT!r}", shown(stamp.format))
        if stamp.format_version > FORMAT_VERSION:
            raise ArchiveError(
                f"{shown(name)} was written by a newer opsproof",
                expected=f"format version {FORMAT_VERSION} or older",
                found=f"{stamp.format_version}, by opsproof {shown(stamp.opsproof_version)}",
                kept=KEPT,
                hint="pip install --upgrade opsproof",
            )
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise declared_wrong(name, f"a manifest of format {FORMAT!r}", explain(error)) from None
    if manifest.dump is None:
        raise declared_wrong(name, "a manifest that names a dump", "one of plain SQL alone")
    return manifest


def require_same(manifest: Manifest, sidecar: Sidecar, name: str) -> None:
    """Make sure that a bundle is the one that its sidecar tells of.

    Raises:
        ArchiveError: It is another.
    """
    inside, beside = manifest.model_dump(mode="json"), sidecar.manifest.model_dump(mode="json")
    other = [key for key in beside if inside[key] != beside[key]]
    if not other:
        return
    keys = [key for key in ("id", "target", "environment") if key in other] or other[:1]
    raise ArchiveError(
        f"{shown(name)} is another backup than the manifest beside it says",
        expected=", ".join(f"{key} {shown(str(beside[key]))}" for key in keys),
        found=", ".join(f"{key} {shown(str(inside[key]))}" for key in keys),
        kept=KEPT,
        hint=DISTRUST,
    )


def split_lines(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Yield the lines of a listing, none of which is endless.

    Raises:
        ArchiveError: One is longer than any that opsproof writes, or the last one is cut.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if len(line) > MOST_LINE:
                break
            yield line
        else:
            if len(rest) <= MOST_LINE:
                continue
        raise declared_wrong(name, f"lines of {MOST_LINE:,} bytes at most", "a longer one")
    if rest:
        raise declared_wrong(name, "a line feed at its end", "a line without one")


def parse_line(model: type[Record], line: bytes, name: str) -> Record:
    """Read a line of a listing.

    Raises:
        ArchiveError: It is no such record.
    """
    try:
        if line.isascii() or _is_utf8(line):
            return model.model_validate_json(line)
        # A file name that is no UTF-8 stands there with its own bytes.
        return model.model_validate(json.loads(line.decode("utf-8", "surrogateescape")))
    except ValidationError as error:
        found = explain(error)
    except (ValueError, RecursionError) as error:
        found = shown(str(error))
    raise declared_wrong(name, "a JSON object in each line", f"{found} in {shown(repr(line[:100]))}")


def require_totals(name: str, what: str, expected: tuple[int | str, ...], found: tuple[int | str, ...]) -> None:
    """Hold sums over a listing against the manifest's.

    Raises:
        ArchiveError: They differ.
    """
    if expected != found:
        told = [", ".join(str(one) for one in numbers) for numbers in (expected, found)]
        raise declared_wrong(name, f"{what}: {shown(told[0])}, as the manifest says", told[1])


def declared_wrong(name: str, expected: str, found: str) -> ArchiveError:
    """Say that a part of the bundle's own records is not as it must be."""
    summary = f"{shown(name)} is not as opsproof writes it"
    hint = "choose another backup: pytest --list-backups --env=ENV"
    return ArchiveError(summary, expected=expected, found=found, kept=KEPT, hint=hint)


def explain(error: ValidationError) -> str:
    """Return what is wrong with a record, without its content."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(shown(f"{'.'.join(map(str, one['loc'])) or 'JSON'}: {one['msg']}") for one in problems[:3])


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
