"""A run's report for the comment of a merge request: short, and harmless whatever a table or an error is called.

What a comment would take for markup, for a mention of somebody or for a command of its own is shown as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from opsproof.report.facts import show_span
from opsproof.report.html import title_of
from opsproof.report.story import Objective, Step, Story, TargetStory

MOST_CHARACTERS = 60_000  # a comment may have 65,536 on GitHub, and whoever posts it adds a line or two
MOST_MESSAGE = 2_000
MOST_CELL = 300
MARKUP = re.compile(r"([\\`*_{}\[\]<>()#!|~$^&]|:(?=\S)|^[-+=/]|(?<=www)\.)", re.IGNORECASE)
MENTION = re.compile(r"@(?=\w)")
FENCE = re.compile("`{3,}")
PARTS = ("targets", "failures", "objectives")
Block = tuple[str, ...]


def render_markdown(story: Story) -> str:
    """Return the report of a run as Markdown, of at most 60,000 characters."""
    took = f"{show_span(story.seconds)}" + (", cut off: the run was killed" if story.is_cut_off else "")
    began = f", begun {story.began:%Y-%m-%d %H:%M:%S} UTC" if story.began else ""
    head = [
        "<!-- opsproof report -->",
        f"## {_escape(title_of(story))}: {story.verdict}",
        "",
        f"{len(story.targets)} {'target' if len(story.targets) == 1 else 'targets'}, {took}{began}.",
        *([f"\n> pytest ended with status {story.status}, though no target here failed."] if story.is_at_odds else []),
        *(f"\n> {_escape(line)}" for line in story.warnings[:3]),
    ]
    text = "\n".join(head)[: MOST_CELL * 10] + "\n"
    # A target that failed is told before one that did not, so that it is not the one that is left out.
    worst = sorted(story.targets, key=lambda one: ("broken", "failed", "planned", "passed").index(one.verdict))
    drilled = [target for target in worst if target.objectives]
    failed = [(target, step) for target in worst for step in target.failures]
    parts: list[tuple[Block, Sequence[str], str]] = [
        (("", *_heads("Target", "Verdict", "Steps passed", "Time", "What it came to")), [_row(one) for one in worst],
         "targets"),
        (("", "### What failed"), [_failure(*one) for one in failed], "failures"),
        (("", "### Objectives", "", *_heads("Target", "Objective", "Measured", "Allowed", "Met")),
         [_objective(target, one) for target in drilled for one in target.objectives], "objectives"),
    ]  # fmt: skip
    # What is left for the later parts is theirs: ten thousand targets leave room for the failures.
    rooms = (MOST_CHARACTERS // 3, MOST_CHARACTERS * 2 // 3, MOST_CHARACTERS)
    for (begin, blocks, what), room in zip(parts, rooms, strict=True):
        if blocks:
            text += "\n".join([*begin, *_within(blocks, room - len(text) - 500, what)]) + "\n"
    return text


def _within(blocks: Sequence[str], room: int, what: str) -> Iterator[str]:
    """Yield as many blocks as there is room for, and how many there are more."""
    for number, block in enumerate(blocks):
        room -= len(block) + 1
        if room < 0:
            yield f"\n{len(blocks) - number:,} more {what}: see the HTML report or the journal."
            return
        yield block


def _row(story: TargetStory) -> str:
    done = (*story.steps, *story.checks)
    passed = sum(one.outcome == "passed" for one in done)
    facts = (fact for one in story.facts for fact in one.facts if fact.label == "backup")
    backup = next((f"backup {_code(fact.values[0])}" for fact in facts), "")
    came_to = _cell(story.reason) if story.reason else backup
    return _cells(
        _code(story.name), f"**{story.verdict}**", f"{passed} of {len(done)}", show_span(story.seconds), came_to
    )


def _failure(story: TargetStory, step: Step) -> str:
    message = step.error.strip()
    if len(message) > MOST_MESSAGE:
        message = f"{message[:MOST_MESSAGE].rstrip()}\n... ({len(message) - MOST_MESSAGE:,} characters more)"
    # A fence that is longer than any in the message cannot be ended by it.
    fence = "`" * max([3, *(len(found) + 1 for found in FENCE.findall(message))])
    around = "" if step.when == "call" else f" ({step.when})"
    return f"\n{_code(story.name)}: {_cell(step.sentence or step.title)} {_code(step.name)}{around}\n\n" + (
        f"{fence}text\n{message or 'The journal does not say why.'}\n{fence}"
    )


def _objective(story: TargetStory, objective: Objective) -> str:
    show: Callable[[float | None], str] = lambda one: "not known" if one is None else show_span(one)  # noqa: E731
    measured = show(objective.measured)
    if objective.widest_gap is not None:
        measured += f", widest gap {show(objective.widest_gap)}"
    met = {True: "yes", False: "**no**", None: "not known"}[objective.is_met]
    return _cells(_code(story.name), objective.name, measured, show(objective.objective), met)


def _heads(*names: str) -> tuple[str, str]:
    return _cells(*names), _cells(*("---" for _ in names))


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Return one line of text that stays in its cell."""
    line = " ".join(text.split())
    return _escape(line if len(line) <= MOST_CELL else line[: MOST_CELL - 1] + "\u2026")


def _escape(text: str) -> str:
    """Return text of which nothing is markup, and nobody is mentioned by it."""
    return MENTION.sub("@\u200b", MARKUP.sub(r"\\\1", " ".join(text.split())))


def _code(text: str) -> str:
    """Return a name as code, where nothing is markup; a bar would end a table's cell even there."""
    line = " ".join(text.split())[:MOST_CELL].replace("|", "\u2223")
    fence = "`" * max([1, *(len(found) + 1 for found in re.findall("`+", line))])
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line or ' '}{pad}{fence}"
