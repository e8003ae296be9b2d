"""A journal, read: its lines into a story."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from opsproof.report.facts import Event, tell_facts
from opsproof.report.judging import judge
from opsproof.report.objectives import tell_objectives
from opsproof.report.story import Drill, Phase, Rows, Step, Story, TargetStory, seconds_between

UNDO = "undo"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# What no page may hold, and what makes a text read otherwise than it is written.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


@dataclass
class _Chapter:
    """The events of one target's procedure, while they are collected."""

    target: str
    procedure: str = ""
    events: list[Event] = field(default_factory=list)
    pending: list[Event] = field(default_factory=list)

    def settle(self) -> None:
        self.events += self.pending
        self.pending.clear()


def read_story(
    lines: Iterable[str],
    *,
    environment: str = "",
    action: str = "",
    has_ended: bool = False,
    journal: str = "",
    head: str = "",
    status: int | None = None,
    clean: Callable[[str], str] = str,
) -> Story:
    """Return the story that a journal tells.

    Args:
        lines: The journal's. One that cannot be read, as the last one of a run that was killed, is passed over.
        environment: What the run was about, where no line says it.
        action: What was done, where no line says it.
        has_ended: Whoever asks knows that the run has ended, whatever the journal says.
        journal: The name of its file.
        head: Of its chain of lines, where that is known.
        status: pytest's exit status, where it is another than the one that the journal has.
        clean: Blots out secrets; every text passes through it.
    """
    events, is_damaged = _read_events(lines, clean)
    begin: Event = next((one for one in events if one["event"] == "run begins"), {})
    end = next((one for one in events if one["event"] == "run ends"), None)
    is_over = has_ended or end is not None
    if status is None and end is not None and isinstance(end.get("exit_status"), int):
        status = end["exit_status"]
    times = [one for event in events if (one := read_time(event.get("time")))]
    is_dry = bool(begin.get("dry_run", False))
    chapters = _divide(events)
    warnings = [str(one.get("message", "")) for one in events if one["event"] == "warning" and not one.get("target")]
    if is_damaged and is_over:
        warnings.append("a line of the journal cannot be read: it is not told here")
    return Story(
        environment=str(begin.get("environment", "")) or environment,
        action=str(begin.get("action", "")) or action,
        began=min(times, default=None),
        ended=max(times, default=None),
        is_dry=is_dry,
        is_cut_off=not is_over,
        targets=tuple(_tell(chapter, is_over=is_over, is_dry=is_dry) for chapter in chapters),
        warnings=tuple(warnings),
        journal=journal,
        head=head,
        status=status,
    )


def read_time(value: object) -> datetime | None:
    """Return a moment as the journal writes it, in UTC; None for anything else."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _read_events(lines: Iterable[str], clean: Callable[[str], str]) -> tuple[list[Event], bool]:
    events: list[Event] = []
    is_damaged = False
    for line in lines:
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            is_damaged = True
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            kind, moment = event["event"], event.get("time")
            # What the report is built by is not blotted out, should somebody's password be "step".
            events.append({**{key: _cleaned(one, clean) for key, one in event.items()}, "event": kind, "time": moment})
        else:
            is_damaged = True
    return events, is_damaged


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    match value:
        case str():
            return UNPRINTABLE.sub("\ufffd", ANSI.sub("", clean(value)))
        case dict():
            return {str(_cleaned(str(key), clean)): _cleaned(one, clean) for key, one in value.items()}
        case list():
            return [_cleaned(one, clean) for one in value]
        case _:
            return value


def _divide(events: Iterable[Event]) -> list[_Chapter]:
    """Divide the events into chapters: one for each target's procedure.

    What happens in a step stands before it, so it waits for the step that says whose it is.
    """
    chapters: list[_Chapter] = []
    open_: dict[str, _Chapter] = {}
    for event in events:
        target = event.get("target")
        if not isinstance(target, str) or not target:
            continue
        chapter = open_.get(target)
        if chapter is None:
            chapter = open_[target] = _Chapter(target)
            chapters.append(chapter)
        procedure = str(event.get("procedure", ""))
        if event["event"] not in ("step", "procedure begins"):
            chapter.pending.append(event)
            continue
        if event["event"] == "procedure begins" or chapter.procedure in ("", procedure):
            chapter.settle()
        if chapter.procedure not in ("", procedure):
            waiting, chapter.pending = chapter.pending, []
            chapter = next((one for one in chapters if (one.target, one.procedure) == (target, procedure)), None)
            if chapter is None:
                chapter = _Chapter(target)
                chapters.append(chapter)
            chapter.events += waiting
            open_[target] = chapter
        chapter.procedure = procedure
        chapter.events.append(event)
    for chapter in chapters:
        chapter.settle()
    return chapters


def _tell(chapter: _Chapter, *, is_over: bool, is_dry: bool) -> TargetStory:
    events = chapter.events
    times = [one for event in events if (one := read_time(event.get("time")))]
    began, ended = min(times, default=None), max(times, default=None)
    steps = _tell_steps(events)
    checks = tuple(_tell_step(event, "check", {}) for event in _named(events, "check") if "outcome" in event)
    phases, is_open = _tell_phases(events, began, ended)
    warnings = tuple(str(event.get("message", "")) for event in _named(events, "warning"))
    is_unfinished = is_open or any(one.outcome == "not reached" for one in steps)
    # Of a run that was killed, a target that had come to its end before is told as what it came to.
    is_cut_off = not is_over and (is_unfinished or not _named(events, "undo ends"))
    drilled = next((_mapping(one.get("outcome")) for one in _named(events, "drill finished")), {})
    drill = Drill(str(drilled.get("restore", "")), str(drilled.get("validation", ""))) if drilled else None
    objectives = tuple(tell_objectives(drilled, _named(events, "drill history")))
    verdict, reason = judge(steps, checks, warnings, drill, is_cut_off=is_cut_off, is_dry=is_dry)
    if verdict in ("passed", "planned"):
        phases = tuple(one for one in phases if one.name != UNDO)  # there was nothing to undo
    return TargetStory(
        name=chapter.target,
        procedure=chapter.procedure.rpartition(".")[2],
        verdict=verdict,
        reason=reason,
        began=began,
        ended=ended,
        is_cut_off=is_cut_off,
        steps=steps,
        checks=checks,
        phases=phases,
        facts=tuple(tell_facts(events)),
        plan=tuple(str(line) for event in _named(events, "plan") for line in _list(event.get("lines"))),
        warnings=warnings,
        drill=drill,
        objectives=objectives,
        rows=tuple(_tell_rows(events)),
    )


def _tell_steps(events: list[Event]) -> tuple[Step, ...]:
    """Return the steps in order, those that were never reached too where the journal names them."""
    known: dict[str, str] = {}
    for event in _named(events, "procedure begins"):
        known |= {name: str(one) for name, one in _mapping(event.get("steps")).items()}
    told: dict[str, list[Step]] = {name: [] for name in known}
    for event in _named(events, "step"):
        step = _tell_step(event, "step", known)
        told.setdefault(step.name, []).append(step)
    # A step that passed, and whose teardown failed then, has two lines.
    return tuple(
        step for name, ones in told.items() for step in ones or [Step(name, known.get(name, ""), "not reached")]
    )


def _tell_step(event: Event, kind: str, sentences: Mapping[str, str]) -> Step:
    name = str(event.get(kind, event.get("step", "")))
    seconds = event.get("seconds")
    return Step(
        name=name,
        sentence=str(event.get("sentence", "")) or sentences.get(name, ""),
        outcome=str(event.get("outcome", "")),
        when=str(event.get("when", "call")),
        seconds=float(seconds) if isinstance(seconds, (int, float)) else None,
        error=str(event.get("error", "")),
    )


def _tell_phases(events: list[Event], began: datetime | None, ended: datetime | None) -> tuple[tuple[Phase, ...], bool]:
    """Return the phases by their beginning, and whether one was still open when the journal ended."""
    running: list[tuple[int, str, float]] = []
    phases: dict[int, Phase] = {}
    for number, event in enumerate(events):
        kind, _, word = str(event["event"]).rpartition(" ")
        if kind not in ("phase", UNDO) or word not in ("begins", "ends"):
            continue
        name = str(event.get("phase", kind))
        moment = seconds_between(began, read_time(event.get("time")))
        if word == "begins":
            running.append((number, name, moment))
            continue
        # Phases that overlap, those of two threads, end in any order.
        mine = next((one for one in reversed(running) if one[1] == name), None)
        if mine is not None:
            running.remove(mine)
            within = tuple(one[1] for one in running if one[0] < mine[0])
            phases[mine[0]] = Phase(name, within, mine[2], moment, str(event.get("outcome", "done")))
    last = seconds_between(began, ended)
    for at, (number, name, moment) in enumerate(running):
        phases[number] = Phase(name, tuple(one[1] for one in running[:at]), moment, last, "cut off")
    return tuple(phases[number] for number in sorted(phases)), bool(running)


def _tell_rows(events: list[Event]) -> Iterator[Rows]:
    for event in events:
        for table, counts in _mapping(_mapping(event.get("outcome")).get("rows")).items():
            match counts:
                case [int() | None as then, int() | None as now]:
                    yield Rows(str(table), then, now)


def _named(events: Iterable[Event], name: str) -> list[Event]:
    return [event for event in events if event["event"] == name]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
