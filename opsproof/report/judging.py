"""How a target's story ended: what it takes to have passed, and why it did not."""

from __future__ import annotations

from opsproof.report.story import Drill, Step, Verdict

NEVER_BEGUN = "was not begun"
NOT_ENDED = "was not brought to its end"


def judge(
    steps: tuple[Step, ...],
    checks: tuple[Step, ...],
    warnings: tuple[str, ...],
    drill: Drill | None,
    *,
    is_cut_off: bool,
    is_dry: bool,
) -> tuple[Verdict, str]:
    """Return a target's verdict, and why it is not a better one.

    Args:
        steps: Of its procedure.
        checks: What was looked at besides.
        warnings: Sentences about it.
        drill: Where it was one.
        is_cut_off: Whether its journal ends in the middle.
        is_dry: Whether nothing was to be changed.
    """
    done = (*steps, *checks)
    failures = [one for one in done if one.outcome == "failed"]
    if is_cut_off:
        return "broken", "the journal ends in the middle of it"
    around = next((one for one in failures if one.when != "call"), None)
    if around is not None:
        return "broken", f"{around.when} of {around.title} failed: {first_line(around.error)}"
    if drill is not None and "broken" in (drill.restore, drill.validation):
        return "broken", "the drill itself did not come to its end"
    if failures:
        return "failed", first_line(failures[0].error) or f"{failures[0].title} failed"
    if drill is not None and "failed" in (drill.restore, drill.validation):
        return "failed", "the restore failed" if drill.restore == "failed" else "what was restored is not as it must be"
    if is_dry and any(one.outcome == "passed" for one in steps) and steps[-1].outcome != "passed":
        return "planned", "a dry run: nothing was changed"
    unfinished = next((line for line in warnings if NOT_ENDED in line), "")
    if unfinished:
        return "failed", unfinished
    if any(one.outcome == "not reached" for one in steps):
        return "broken", "it was not brought to its end"
    if not any(one.outcome == "passed" for one in done):
        return "broken", next((line for line in warnings if NEVER_BEGUN in line), "nothing was confirmed")
    return "passed", ""


def first_line(text: str) -> str:
    """Return the first line of a message."""
    return text.strip().partition("\n")[0]
