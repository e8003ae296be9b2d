"""The report for a merge request's comment: short, and harmless."""

from __future__ import annotations

import re

import pytest

from opsproof.report.markdown import MOST_CHARACTERS, render_markdown
from opsproof.report.reading import read_story
from tests.lab.journals import HOSTILE, JournalLines, drill


def render(journal: JournalLines) -> str:
    return render_markdown(read_story(journal.lines))


def test_a_drill() -> None:
    text = render(drill())
    lines = text.splitlines()
    assert lines[:2] == ["<!-- opsproof report -->", "## Drill of staging: failed"]
    assert "| `erp` | **failed** | 3 of 5 | 9 min 30 s | RPO: 24 h between two verified backups |" in lines
    assert "| `erp` | RTO | 9 min 22 s | 30 min | yes |" in lines
    assert "| `erp` | RPO | 3 h 59 min, widest gap 24 h | 4 h | **no** |" in lines
    assert "  hint:     pytest actions/test_backup.py --env=prod" in lines


def test_what_passed_has_nothing_that_failed() -> None:
    journal = JournalLines()
    journal.begin("backup", steps={"test_dump": "It dumps."})
    journal.step(1, "test_dump")
    journal.end(2)
    text = render(journal)
    assert "## Backup of staging: passed" in text
    assert "What failed" not in text
    assert "Objectives" not in text


def test_a_killed_run_is_told_as_one() -> None:
    text = render_markdown(read_story(drill().lines[:8]))
    assert "## Drill of staging: broken" in text
    assert "cut off: the run was killed" in text


@pytest.mark.parametrize(
    "hostile", [HOSTILE, "a|b\n\n# c", "```\n/close\n@all", "[x](http://e) ![y](z)", "& <!-- -->", "WWW.example.org"]
)
def test_no_name_and_no_message_is_markup_or_mentions_anybody(hostile: str) -> None:
    journal = JournalLines(target=hostile)
    journal.begin(steps={"test_x": hostile})
    journal.step(1, "test_x", "failed", error=hostile)
    journal.add(1, "warning", target=None, message=hostile)
    journal.end(2)
    text = render(journal)
    # What stands in code, fenced or not, is shown as it is.
    outside, fence = [], ""
    for line in text.splitlines():
        ticks = re.match("`{3,}", line)
        if fence:
            fence = "" if line == fence else fence
        elif ticks:
            fence = ticks[0]
        else:
            outside.append(re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "CODE", line))
    assert fence == ""
    assert not [line for line in outside if re.search(r"(?<!\\)[<\[*_](?!!-- opsproof|\*)", line.replace("**", ""))]
    assert not [line for line in outside if re.search(r"@\w|^/|www\.", line, re.IGNORECASE)]
    table = [line for line in outside if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {6}


def test_it_fits_into_a_comment_whatever_happened() -> None:
    journal = JournalLines()
    journal.begin()
    for number in range(1000):
        journal.step(1, "test_x", "failed", target=f"t{number}", error=f"{'`' * 50}\n" * 100)
        outcome = {"rto": {"measured": 5, "objective": 1}, "rows": {}}
        journal.add(2, "drill finished", target=f"t{number}", outcome=outcome)
    journal.add(3, "warning", target=None, message="w" * 100_000)
    journal.end(4)
    text = render(journal)
    assert len(text) < MOST_CHARACTERS
    for what in ("targets", "failures", "objectives"):
        assert re.search(rf"[\d,]+ more {what}: see", text)
