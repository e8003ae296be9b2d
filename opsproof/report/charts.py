"""Charts: phases drawn to scale, and RTO and RPO against their objectives, each as an `svg` element by matplotlib.

A chart's text is as wide as the reader's font makes it, so nothing stands right of a text that may be long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opsproof.report.facts import show_span
from opsproof.report.story import Objective, Phase
from opsproof.report.svg import ACCENT, BAD, BAND, INK, MUTED, RULE, SOFT, draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HATCH = "////"
THINNEST = 2.0  # pixels: what took no time at all is still to be seen
MOST_EARLIER = 24
INDENT = 14.0
BEHIND = 0.5  # matplotlib's order of drawing: before any bar
STEPS = (1.0, 2.0, 5.0)
MINUTES = (60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 21600.0, 43200.0, 86400.0)
DAY = 86_400.0


@dataclass(frozen=True)
class Shape:
    """The form of a timeline. Pixels.

    Attributes:
        width: Of all of it.
        left: Where the scale begins.
        right: How much is kept free right of it.
        row: The height of a row.
        bar: The height of a bar.
        lead: From the top of a row to its bar.
        text: The size of the text.
        longest: The most characters of a label.
        ticks: The most of them.
    """

    name: str
    width: float
    left: float
    right: float
    row: float
    bar: float
    lead: float
    text: float
    longest: int
    ticks: int


# On a phone a phase's name stands above its bar.
SHAPES = (
    Shape("wide", 840, 190, 116, 26, 12, 7, 12.5, 26, 8),
    Shape("narrow", 320, 0, 0, 42, 12, 22, 13, 24, 4),
)


@dataclass(frozen=True)
class _Row:
    """A line of the timeline: phases of one name, within the same ones."""

    name: str
    depth: int
    phases: tuple[Phase, ...]

    @property
    def shown(self) -> str:
        worst = next((one.outcome for one in self.phases if one.outcome != "done"), "")
        seconds = show_span(sum(one.seconds for one in self.phases))
        return f"{seconds}, {worst}" if worst else seconds


def draw_timeline(phases: Sequence[Phase], seconds: float, *, name: str, target: str) -> list[str]:
    """Return a target's phases, drawn to scale: once for a page, once for a phone.

    Args:
        phases: In the order in which they began.
        seconds: How long all of it took.
        name: What the ids of the drawings begin with.
        target: Whose they are.
    """
    rows = _rows(phases)
    total = max([seconds, *(one.end for one in phases)])
    description = f"{show_span(total)} in all. " + " ".join(
        f"{row.name}{' (a part of ' + row.phases[0].within[-1] + ')' if row.depth else ''}: {row.shown},"
        f" from {show_span(row.phases[0].begin)} on."
        for row in rows
    )
    return [
        draw_svg(
            _timeline(rows, total, shape),
            name=f"{name}-{shape.name}",
            title=f"Phases of {target}, drawn to scale",
            description=description,
            kind=shape.name,
        )
        for shape in SHAPES
    ]


def _rows(phases: Sequence[Phase]) -> list[_Row]:
    known: dict[tuple[str, ...], list[Phase]] = {}
    for phase in phases:
        known.setdefault((*phase.within, phase.name), []).append(phase)
    # A part stands below what it is a part of, also where something else came between.
    order = {path: number for number, path in enumerate(known)}

    def place(path: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(order.get(path[:depth], 0) for depth in range(1, len(path) + 1))

    return [_Row(path[-1], len(path) - 1, tuple(known[path])) for path in sorted(known, key=place)]


def _timeline(rows: Sequence[_Row], total: float, shape: Shape) -> Figure:
    height = len(rows) * shape.row + 26
    figure, axes = _canvas(shape.width, height)
    plot = shape.width - shape.left - shape.right
    scale = plot / (total or 1.0)
    bottom = len(rows) * shape.row
    for tick in ticks(total, shape.ticks):
        at = shape.left + tick * scale
        axes.plot([at, at], [0, bottom], color=RULE, linewidth=1, clip_on=False, zorder=BEHIND)
        # The last one would hang over the edge where nothing is kept free there.
        last = at > shape.width - 30
        align = "left" if at < 15 else "right" if last else "center"
        _write(axes, at, bottom + 16, show_tick(tick), size=shape.text - 1.5, colour=MUTED, align=align)
    for number, row in enumerate(rows):
        top = number * shape.row
        label = row.name if len(row.name) <= shape.longest else row.name[: shape.longest - 1] + "…"
        middle = top + shape.lead + shape.bar / 2 + 4 if shape.left else top + shape.lead - 6
        _write(axes, row.depth * INDENT, middle, label, size=shape.text, colour=MUTED if row.depth else INK)
        _write(axes, shape.width, middle, row.shown, size=shape.text, colour=MUTED, align="right")
        for phase in row.phases:
            wide = max(phase.seconds * scale, THINNEST)
            at = min(shape.left + phase.begin * scale, shape.left + plot - wide)
            _bar(axes, at, top + shape.lead, wide, shape.bar, _fill(phase.outcome, row.depth), phase.outcome != "done")
    return figure


def draw_objective(objective: Objective, *, name: str, is_passed: bool) -> str:
    """Return RTO or RPO: what was measured, what is asked for, and what earlier drills measured.

    Args:
        objective: With something measured.
        name: What the ids of the drawing begin with.
        is_passed: Whether this drill passed.
    """
    earlier = objective.earlier[-MOST_EARLIER:]
    figure = _objective(objective, is_passed=is_passed)
    said = [f"Measured: {show_span(objective.worst or 0.0)}."]
    if objective.objective is not None:
        said.append(f"Objective: {show_span(objective.objective)}.")
    said += [
        f"{one.time:%Y-%m-%d %H:%M}: {show_span(one.seconds)}, {one.verdict or 'no verdict'}."
        if one.time
        else f"{show_span(one.seconds)}, {one.verdict or 'no verdict'}."
        for one in earlier
    ]
    title = f"{objective.name} of this drill" + (f" and of {len(earlier)} earlier ones" if earlier else "")
    return draw_svg(figure, name=name, title=title, description=" ".join(said), kind="objective")


def _objective(objective: Objective, *, is_passed: bool) -> Figure:
    width, top = 340.0, 22.0
    earlier = objective.earlier[-MOST_EARLIER:]
    figure, axes = _canvas(width, 66.0 + (134.0 if earlier else 0.0))
    measured, limit = objective.worst or 0.0, objective.objective
    scale = width / (max(measured, limit or 0.0) * 1.04 or 1.0)
    colour = BAD if objective.is_met is False else ACCENT
    _bar(axes, 0, top, width, 18, BAND)
    _bar(axes, 0, top + 3, max(measured * scale, THINNEST), 12, colour, objective.is_met is False)
    is_gap = measured != objective.measured
    _write(axes, 0, top - 8, f"{show_span(measured)}{', the widest gap' if is_gap else ''}", size=12.5, bold=True)
    if limit is not None:
        at = limit * scale
        axes.plot([at, at], [top - 4, top + 24], color=INK, linewidth=2, clip_on=False)
        _write(axes, at, top + 38, f"objective {show_span(limit)}", size=12, colour=MUTED, align=_align(at, width))
    if earlier:
        _trend(axes, objective, width, 84.0, is_passed=is_passed)
    return figure


def _trend(axes: Axes, objective: Objective, width: float, top: float, *, is_passed: bool) -> None:
    earlier = objective.earlier[-MOST_EARLIER:]
    high, limit = 84.0, objective.objective
    measured = objective.measured or 0.0
    most = max([measured, limit or 0.0, *(one.seconds for one in earlier)]) * 1.12 or 1.0
    bottom, pitch = top + high, width / (len(earlier) + 1)
    thick = min(pitch * 0.62, 26.0)
    columns = [(one.seconds, one.verdict in ("passed", "")) for one in earlier] + [(measured, is_passed)]
    for number, (seconds, passed) in enumerate(columns):
        tall, at = max(seconds / most * high, THINNEST), number * pitch + (pitch - thick) / 2
        is_now = number == len(columns) - 1
        fill = BAD if not passed else ACCENT if is_now else SOFT
        _bar(axes, at, bottom - tall, thick, tall, fill, not passed)
        if not passed:
            _write(axes, at + thick / 2, bottom - tall - 5, "\u00d7", size=13, colour=BAD, align="center", bold=True)
    axes.plot([0, width], [bottom, bottom], color=RULE, linewidth=1, clip_on=False)
    if limit is not None:
        at = bottom - limit / most * high
        axes.plot([0, width], [at, at], color=INK, linewidth=1.2, linestyle=(0, (4, 3)), clip_on=False)
    first = earlier[0].time
    _write(axes, 0, bottom + 18, f"{first:%Y-%m-%d}" if first else "earlier", size=12, colour=MUTED)
    _write(axes, width, bottom + 18, "this drill", size=12, align="right")


def ticks(total: float, most: int) -> list[float]:
    """Return round numbers of seconds from 0 to a total, not more than so many.

    >>> ticks(5.2, 6), ticks(4000, 5)
    ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 900.0, 1800.0, 2700.0, 3600.0])
    """
    if total <= 0:
        return [0.0]
    steps = [base * 10.0**power for power in range(-4, 2) for base in STEPS if base * 10.0**power <= 30]
    steps += [30.0, *MINUTES]
    step = next((one for one in steps if total / one <= most), math.ceil(total / most / DAY) * DAY)
    return [round(number * step, 6) for number in range(int(total / step + 1e-9) + 1)]


def show_tick(seconds: float) -> str:
    """Return a round number of seconds, as short as can be.

    >>> [show_tick(one) for one in (0, 0.05, 2.5, 90, 600, 5400)]
    ['0', '50 ms', '2.5 s', '90 s', '10 min', '1.5 h']
    """
    if not seconds:
        return "0"
    if seconds < 1:
        return f"{seconds * 1000:g} ms"
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:g} h"


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure whose units are pixels, the origin at its top left."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure, axes


def _bar(axes: Axes, at: float, top: float, wide: float, tall: float, colour: str, is_hatched: bool = False) -> None:
    from matplotlib.patches import Rectangle

    if is_hatched:
        axes.add_patch(
            Rectangle((at, top), wide, tall, facecolor=BAND, edgecolor=colour, hatch=HATCH, linewidth=1, clip_on=False)
        )
    else:
        axes.add_patch(Rectangle((at, top), wide, tall, facecolor=colour, linewidth=0, clip_on=False))


def _write(
    axes: Axes,
    at: float,
    base: float,
    text: str,
    *,
    size: float,
    colour: str = INK,
    align: str = "left",
    bold: bool = False,
) -> None:
    weight = "bold" if bold else "normal"
    axes.text(
        at, base, text, fontsize=size, color=colour, ha=align, va="baseline", weight=weight, parse_math=False,
        clip_on=False,
    )  # fmt: skip


def _fill(outcome: str, depth: int) -> str:
    if outcome != "done":
        return BAD
    return SOFT if depth else ACCENT


def _align(at: float, width: float) -> str:
    return "left" if at < width / 3 else "right" if at > width * 2 / 3 else "center"
