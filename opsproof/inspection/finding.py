"""What a look at something found that is not as it must be, and the error that those make that block."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from opsproof.errors import NoRoom, ProofError

ROOM = "room"


@dataclass(frozen=True)
class Finding:
    """Something that is not as a restore needs it; what does not block is only worth knowing."""

    subject: str
    expected: str
    found: str
    hint: str
    blocks: bool


def require(findings: Iterable[Finding], procedure: str = "a restore") -> tuple[Finding, ...]:
    """Return the findings that do not block, if none does.

    Args:
        findings: What was found.
        procedure: What they are in the way of.

    Raises:
        NoRoom: Disks do, and nothing else.
        ProofError: Some do; all of them are listed.
    """
    known = tuple(findings)
    blocking = [finding for finding in known if finding.blocks]
    if blocking:
        numbered = list(enumerate(blocking, 1))
        kind = NoRoom if all(one.subject == ROOM for one in blocking) else ProofError
        raise kind(
            f"{len(blocking)} {'thing stands' if len(blocking) == 1 else 'things stand'} in the way of {procedure}",
            expected="\n".join(f"{number}. {one.subject}: {one.expected}" for number, one in numbered),
            found="\n".join(f"{number}. {one.subject}: {one.found}" for number, one in numbered),
            kept="nothing was changed",
            hint="\n".join(f"{number}. {one.hint}" for number, one in numbered),
        )
    return known
