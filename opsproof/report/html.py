"""A run's report as one HTML file: no network, no script, light and dark, on a screen, a phone and paper.

Everything that a journal says is escaped; only the charts, which are made here, are markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from opsproof.report.charts import MOST_EARLIER, draw_objective, draw_timeline
from opsproof.report.facts import SAFETY, show_span
from opsproof.report.story import Fact, Facts, Objective, Rows, Story, TargetStory

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE = "report.html"
MOST_DRAWN = 40  # targets: beyond that the drawings of a fleet take longer than its backups
MOST_TILES = 6
PIECES = re.compile(r"[^_./]*[_./]|[^_./]+")
MINUS = "\u2212"
TIME = "%Y-%m-%d %H:%M:%S UTC"
VERDICTS = {
    "passed": "Everything that was to be proven is proven.",
    "failed": "Something was checked and is not as it must be.",
    "planned": "A dry run: it looked, and changed nothing.",
    "broken": "The run did not come to its end: what it was to prove is not proven.",
}
ACTIONS = {"recover": "recovery"}
OBJECTIVES = {"RTO": "Recovery time (RTO)", "RPO": "Recovery point (RPO)"}
# What comes first is what was asked for; how it came about follows.
FIRST = ("Drilled", "Restored", "Rolled back", "Recovered", "Stored and verified", "The backup", "Outage")
# What was done, in a sentence, by the first of these of which everything is known.
LEADS = {
    "Drilled": "Drilled with backup {backup} at {location}.",
    "Restored": "Restored from backup {backup} at {location}.",
    "Stored and verified": "Backup {backup} is stored at {location}.",
    "The backup": "With backup {backup} at {location}.",
}
# Of which facts a tile is made: of these titles (of any: ""), this label, under this name.
REPEATED = ("backup", "location", "SHA-256", "safety backup")
TILES = (
    ("Outage", "total", "outage"),
    ("", "size", "size"),
    ("", "tables", "tables"),
    ("", "rows", "rows"),
    ("", "files", "files"),
)


@dataclass(frozen=True)
class _Card:
    """RTO or RPO, as it is shown."""

    title: str
    value: str
    status: str
    verdict: str
    lines: tuple[str, ...]
    chart: Markup


@dataclass(frozen=True)
class _View:
    """A target, as it is shown."""

    number: int
    story: TargetStory
    lead: str
    tiles: tuple[tuple[str, str], ...]
    facts: tuple[Facts, ...]
    charts: tuple[Markup, ...]
    cards: tuple[_Card, ...]
    changed: tuple[Rows, ...]
    same: tuple[Rows, ...]


def render_html(story: Story, *, version: str = "") -> str:
    """Return the report of a run as an HTML page.

    Args:
        story: The run's.
        version: Of opsproof, for the foot of the page.

    Raises:
        ImportError: The extra `report` is not installed.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"span": show_span, "moment": _moment, "count": _count, "change": _change, "pieces": _pieces}
    drawn = sorted(range(len(story.targets)), key=lambda at: story.targets[at].verdict == "passed")[:MOST_DRAWN]
    views = [_view(target, number, is_drawn=number in drawn) for number, target in enumerate(story.targets)]
    return environment.get_template(TEMPLATE).render(
        story=story,
        views=views,
        title=title_of(story),
        verdicts=VERDICTS,
        undrawn=len(views) - len(drawn),
        version=version,
    )


def title_of(story: Story) -> str:
    """Return what the report is of: `Restore of prod`."""
    if story.targets and not any(target.procedure for target in story.targets):
        return f"Checks of {story.environment}"
    words = ACTIONS.get(story.action) or story.action.replace("_", " ") or "run"
    return f"{words[:1].upper()}{words[1:]} of {story.environment}" + (", dry run" if story.is_dry else "")


def _view(story: TargetStory, number: int, *, is_drawn: bool) -> _View:
    name = f"t{number + 1}"
    is_timed = is_drawn and bool(story.phases)
    timelines = draw_timeline(story.phases, story.seconds, name=f"{name}-phases", target=story.name) if is_timed else []
    return _View(
        number=number + 1,
        story=story,
        lead=_lead(story),
        tiles=tuple(_tiles(story))[:MOST_TILES],
        facts=tuple(_without_repetition(sorted(story.facts, key=_rank))),
        charts=tuple(_markup(one) for one in timelines),
        cards=tuple(_cards(story, name, is_drawn=is_drawn)),
        changed=tuple(row for row in story.rows if not row.is_same),
        same=tuple(row for row in story.rows if row.is_same),
    )


def _rank(facts: Facts) -> int:
    return FIRST.index(facts.title) if facts.title in FIRST else len(FIRST)


def _lead(story: TargetStory) -> str:
    known = {one.title: {fact.label: ", ".join(fact.values) for fact in one.facts} for one in story.facts}
    for title, sentence in LEADS.items():
        if {"backup", "location"} <= known.get(title, {}).keys():
            return sentence.format_map(known[title])
    return ""


def _without_repetition(facts: Sequence[Facts]) -> Iterator[Facts]:
    """Leave out what was said of another thing already, word for word: which backup it was, and where it lies."""
    said: set[Fact] = set()
    for one in facts:
        new = tuple(fact for fact in one.facts if not (fact in said and fact.label in REPEATED))
        said.update(new)
        if new:
            yield Facts(one.title, new)


def _tiles(story: TargetStory) -> Iterator[tuple[str, str]]:
    yield "took", show_span(story.seconds)
    for name, ones in (("steps", story.steps), ("checks", story.checks)):
        if ones:
            passed = sum(one.outcome == "passed" for one in ones)
            yield f"{name} passed", f"{passed} of {len(ones)}"
    ranked = sorted((one for one in story.facts if one.title != SAFETY), key=_rank)
    for title, label, shown in TILES:
        values = [
            fact.values[0]
            for one in ranked
            for fact in one.facts
            if fact.label == label and title in ("", one.title) and (title or one.title != "Outage")
        ]
        if values:
            yield shown, values[0].partition(" (")[0]


def _cards(story: TargetStory, name: str, *, is_drawn: bool) -> Iterator[_Card]:
    for objective in story.objectives:
        measured = objective.worst
        chart = ""
        if measured is not None and is_drawn:
            chart = draw_objective(
                objective, name=f"{name}-{objective.name.lower()}", is_passed=story.verdict == "passed"
            )
        yield _Card(
            title=OBJECTIVES.get(objective.name, objective.name),
            value="not measured" if objective.measured is None else show_span(objective.measured),
            status=_status(objective),
            verdict={True: "passed", False: "failed", None: "planned"}[objective.is_met],
            lines=tuple(_lines(objective, is_drawn=is_drawn)),
            chart=_markup(chart),
        )


def _status(objective: Objective) -> str:
    if objective.objective is None:
        return "no objective is set"
    allowed = f"{show_span(objective.objective)} allowed"
    if objective.is_met is False and objective.measured is not None and objective.measured <= objective.objective:
        return f"missed by the widest gap: {allowed}"
    return {True: f"met: {allowed}", False: f"missed: {allowed}", None: f"not measured: {allowed}"}[objective.is_met]


def _lines(objective: Objective, *, is_drawn: bool) -> Iterator[str]:
    if objective.name == "RTO":
        yield "From choosing the backup to the last check passed."
    else:
        yield "Age of the newest backup: what would be lost if everything were lost now."
    if objective.costliest is not None:
        phase, seconds = objective.costliest
        share = f" ({seconds / objective.measured:.0%})" if objective.measured else ""
        yield f"Most of it went to {phase}: {show_span(seconds)}{share}."
    if objective.widest_gap is not None:
        yield f"Widest gap between two verified backups: {show_span(objective.widest_gap)}."
    earlier = objective.earlier[-MOST_EARLIER:]
    if earlier and is_drawn:
        failed = sum(one.verdict not in ("passed", "") for one in earlier)
        told = f"{failed} of them did not pass (hatched)" if failed else "all of them passed"
        yield f"Below: {_drills(earlier)} earlier, then this one; {told}."
        if objective.objective is not None:
            yield "The dashed line is the objective."


def _drills(earlier: Sequence[object]) -> str:
    return "one drill" if len(earlier) == 1 else f"{len(earlier)} drills"


def _markup(svg: str) -> Markup:
    """Return a chart as markup: ElementTree has escaped every text in it."""
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704


def _pieces(name: str) -> list[str]:
    """Return a long name in pieces, between which a line may end."""
    return PIECES.findall(name)


def _moment(moment: datetime | None) -> str:
    return "not known" if moment is None else moment.astimezone(UTC).strftime(TIME)


def _count(number: int | None) -> str:
    return "none" if number is None else f"{number:,}"


def _change(rows: Rows) -> str:
    if rows.is_same:
        return "same"
    if rows.difference is None:
        return "gone" if rows.now is None else "new"
    return f"{rows.difference:+,}".replace("-", MINUS)
