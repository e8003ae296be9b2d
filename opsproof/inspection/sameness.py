"""Whether two readings of the same data agree."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from opsproof.errors import ProofError
from opsproof.system.copytext import Content

SHOWN = 10


def compare_contents(expected: Mapping[str, Content], found: Mapping[str, Content], what: str) -> int:
    """Return how many tables agree in rows and fingerprint, which is all of them.

    Raises:
        ProofError: Some do not; each is named with both readings.
    """
    differences = [
        f"{name}: {_tell(expected.get(name))} in the snapshot, {_tell(found.get(name))} in {what}"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]
    if differences:
        raise ProofError(
            f"{len(differences)} tables in {what} differ from the snapshot",
            expected="the same rows and the same fingerprint in every table",
            found=_list(differences),
            kept="no backup was written",
            hint="run it again; if it differs twice, test the machine's memory and disks",
        )
    return len(expected)


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
            found=_list(lost),
            kept="no backup was written",
            hint=f"check {origin}; for files lost long ago, set accept_missing_files: {len(lost)}",
        )


def _label(objects: Mapping[int, Content]) -> dict[str, Content]:
    return {f"large object {oid}": content for oid, content in objects.items()}


def _tell(content: Content | None) -> str:
    if content is None:
        return "nothing"
    rows = "other rows" if content.rows is None else f"{content.rows} rows"
    return rows + (f" ({content.fingerprint[:12]})" if content.fingerprint else "")


def _list(lines: list[str]) -> str:
    more = len(lines) - SHOWN
    return "\n".join([*lines[:SHOWN], *([f"... and {more} more"] if more > 0 else [])])
