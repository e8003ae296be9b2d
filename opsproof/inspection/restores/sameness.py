"""Whether two readings of the same data agree."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from opsproof.errors import ProofError
from opsproof.system.postgres.copytext import Content
from opsproof.system.postgres.schematext import Block, Schema, plain_label

SHOWN = 10
# What a server may print in another way when it has read its own text: `s = ANY ((ARRAY['a'::varchar])::text[])` comes
# back as `s = ANY (ARRAY[('a'::varchar)::text])`. Literals, quoted names and the bodies of functions stay as they are.
REPRINTED = re.compile(
    r"""(?P<kept>'[^']*'|"[^"]*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"""
    r"""|::(?:"[^"]*"|[\w.])+(?: varying| precision|(?:\(\d+\))? with(?:out)? time zone)?(?:\([\d,]+\))?(?:\[\])*"""
    r"""|[()\s]""",
    re.S,
)


def compare_contents(expected: Mapping[str, Content], found: Mapping[str, Content], what: str) -> int:
    """Return how many tables agree in rows and fingerprint, which is all of them.

    Raises:
        ProofError: Some do not; each is named with both readings.
    """
    differences = list_differences(expected, found, "the snapshot", what)
    if differences:
        raise ProofError(
            f"{len(differences)} tables in {what} differ from the snapshot",
            expected="the same rows and the same fingerprint in every table",
            found=list_first(differences),
            kept="no backup was written",
            hint="run it again; if it differs twice, test the machine's memory and disks",
        )
    return len(expected)


def list_differences(
    expected: Mapping[str, Content], found: Mapping[str, Content], origin: str, what: str
) -> list[str]:
    """Return a line for each table that differs, or that only one of the two has."""
    return [
        f"{name}: {_tell(expected.get(name))} in {origin}, {_tell(found.get(name))} in {what}"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]


def list_schema_differences(expected: Schema, found: Schema, *, owners: bool = True, grants: bool = True) -> list[str]:
    """Return a line for each line of a schema's text that differs, with the object that it is about.

    The order of the objects does not matter, nor whether an expression was printed once or read and printed again.

    Args:
        expected: Of the dump.
        found: Of the restored copy.
        owners: Compare whose the objects are.
        grants: Compare the grants, too.
    """
    ours, theirs = (_texts(schema, owners=owners, grants=grants) for schema in (expected, found))
    differences = []
    for label in sorted({*ours, *theirs}):
        left, right = Counter(ours.get(label, ())), Counter(theirs.get(label, ()))
        missing, more = list((left - right).elements()), list((right - left).elements())
        if sorted(map(_as_reprinted, missing)) == sorted(map(_as_reprinted, more)):
            continue
        before, after = ("\n".join(bodies).splitlines() for bodies in (missing, more))
        differences += [
            f"{label}: {'missing' if line[0] == '-' else 'extra'}: {line[2:].strip()}"
            for line in difflib.ndiff(before, after)
            if line[0] in "-+" and line[2:].strip()
        ]
    return differences


def list_object_differences(expected: Schema, found: Schema, *, owners: bool = True) -> list[str]:
    """Return a line for each object of a dump that is missing in a copy, or is somebody else's there.

    It is what can be said where the two were printed by different major versions, each in its own words.

    Args:
        expected: Of the dump.
        found: Of the restored copy.
        owners: Compare whose the objects are.
    """
    there = {plain_label(block.label): block.owner for block in found.blocks}
    differences = []
    for block in expected.blocks:
        label = plain_label(block.label)
        if block.is_large_object or _is_comment_on_extension(block):
            continue
        if label not in there:
            differences.append(f"{label}: missing")
        elif owners and block.owner and there[label] != block.owner:
            differences.append(f"{label}: of {block.owner} in the dump, of {there[label]} in the copy")
    return differences


def compare_objects(expected: Mapping[int, Content], found: Mapping[int, Content]) -> int:
    """Return how many large objects agree in size and SHA-256, which is all of them.

    Raises:
        ProofError: Some do not.
    """
    return compare_contents(_label(expected), _label(found), "the dump")


def require_attachments(
    wanted: int, missing: Collection[str], damaged: Collection[str], accepted: int, origin: str
) -> None:
    """Check that every attachment of the snapshot is in the bundle, with the content that its name promises.

    Args:
        wanted: How many the snapshot names.
        missing: Those that no file was found for.
        damaged: Those whose content has another SHA-1 than their name.
        accepted: How many may be missing or damaged: what the inventory says was lost long ago.
        origin: Where the filestore's place is configured.

    Raises:
        ProofError: More are.
    """
    lost = [f"{name} is missing" for name in missing] + [f"{name} is damaged" for name in damaged]
    if len(lost) > accepted:
        raise ProofError(
            f"{len(lost)} of {wanted} attachments are not in the filestore as the database names them",
            expected=f"a file for each attachment, its SHA-1 its name (accept_missing_files: {accepted})",
            found=list_first(lost),
            kept="no backup was written",
            hint=f"check {origin}; for files lost long ago, set accept_missing_files: {len(lost)}",
        )


def _texts(schema: Schema, *, owners: bool, grants: bool) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = defaultdict(list)
    for block in schema.blocks:
        is_grant = block.kind in ("ACL", "DEFAULT ACL")
        # An extension's comment comes with its version, which is compared by itself.
        if block.is_large_object or (is_grant and not grants) or _is_comment_on_extension(block):
            continue
        body = block.body if owners else block.without_owner().body
        # The order of grants is that in which they were made, and means nothing.
        texts[block.label].append("\n".join(sorted(body.splitlines())) if is_grant else body)
    return texts


def _is_comment_on_extension(block: Block) -> bool:
    return block.kind == "COMMENT" and block.name.startswith("EXTENSION ")


def _as_reprinted(body: str) -> str:
    return REPRINTED.sub(lambda match: match["kept"] or "", body)


def _label(objects: Mapping[int, Content]) -> dict[str, Content]:
    return {f"large object {oid}": content for oid, content in objects.items()}


def _tell(content: Content | None) -> str:
    if content is None:
        return "nothing"
    rows = "other rows" if content.rows is None else f"{content.rows} rows"
    return rows + (f" ({content.fingerprint[:12]})" if content.fingerprint else "")


def list_first(lines: list[str], shown: int = SHOWN) -> str:
    """Return the first lines, and how many more there are."""
    more = len(lines) - shown
    return "\n".join([*lines[:shown], *([f"... and {more} more"] if more > 0 else [])])
