"""`--report-html` and `--report-md`: of real runs, and, in a real browser, what people see of them."""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from opsproof.plugin.reporting import claim_file
from opsproof.report.html import render_html
from opsproof.report.markdown import render_markdown
from opsproof.report.reading import read_story
from tests.lab.action_run import ActionRun, Project
from tests.lab.chromium import Page, browser
from tests.lab.fleets import Fleet, fleet_of
from tests.lab.journals import HOSTILE, JournalLines, drill
from tests.lab.lookover import find_faults
from tests.lab.postgres_server import PostgresServer
from tests.lab.waiting import await_true

SMALLEST, PHONE, DESK, PAPER = 320, 360, 1280, 688
WITHOUT_MATPLOTLIB = "import sys; sys.modules['matplotlib'] = None\n"


class Words(HTMLParser):
    """The words of a page, and the elements that it is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")], attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def fleet(wheel_postgres: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(2, wheel_postgres, tmp_path / "project") as fleet:
        yield fleet


def report(project: Project, *arguments: str) -> tuple[ActionRun, str, str]:
    """Run a backup with both reports."""
    page, comment = project.folder / "out" / "run.html", project.folder / "out" / "run.md"
    run = project.run(*arguments, f"--report-html={page}", f"--report-md={comment}")
    assert f"report {page}" in run.output, run.output
    # Nothing of their making is left beside them.
    assert sorted(one.name for one in page.parent.iterdir()) == ["run.html", "run.md"]
    return run, page.read_text(), comment.read_text()


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_a_run_of_two_targets_of_which_one_fails(fleet: Fleet, workers: list[str]) -> None:
    fleet.describe(t1=fleet.missing())
    run, page, comment = report(fleet.project, *workers)
    assert run.status == 1, run.output
    words = Words(page)
    assert "Backup of prod" in words.text
    assert "status 1" not in words.text
    error = run.failed_step("t1").message.partition(": ")[2].splitlines()[0]
    for told in (words.text, comment):
        assert error in told
    assert "| `t0` | **passed** |" in comment
    assert "| `t1` | **failed** |" in comment
    # The sentences of the steps come with the journal, whichever process ran them.
    assert "The stored copy is what was sent" in words.text or "stored copy" in words.text
    location = next(event["outcome"]["location"] for event in run.named("backup verified"))
    assert location in words.text
    # Nothing was written after the journal's last line, whose link the XML has, too.
    assert run.events[-1]["event"] == "run ends"
    (link,) = re.findall(r'name="opsproof_journal_head" value="(\w+)"', run.xml)
    assert link in words.text
    assert "script" not in words.tags
    assert fleet.server.password not in page + comment
    mode = stat.S_IMODE((fleet.project.folder / "out" / "run.html").stat().st_mode)
    umask = os.umask(0o022)
    os.umask(umask)
    assert mode == 0o666 & ~umask


def test_a_run_that_is_interrupted_is_reported(fleet: Fleet) -> None:
    _, settings = fleet.hang("t0")
    fleet.describe(t0=settings)
    page = fleet.project.folder / "run.html"
    with fleet.project.begin(f"--report-html={page}", "--target=t0") as begun:
        begun.wait_until(lambda: any(event.get("phase") == "dump" for event in begun.events()))
        begun.send(signal.SIGTERM)
        run = begun.finish()
    assert run.status != 0
    words = Words(page.read_text()).text
    assert "SIGTERM" in words
    assert "failed" in words
    assert fleet.project.processes() == []


def test_a_run_that_is_killed_leaves_no_report_of_the_last_one(fleet: Fleet) -> None:
    go_on = fleet.project.folder / "go on"
    _, settings = fleet.hang("t0", f"while [ ! -e '{go_on}' ]; do sleep 0.1; done; exit 1")
    page = fleet.project.folder / "run.html"
    page.write_text(render_html(read_story(drill().lines)))
    fleet.describe(t0=settings)
    with fleet.project.begin(f"--report-html={page}", "--target=t0") as begun:
        begun.wait_until(lambda: any(event.get("phase") == "dump" for event in begun.events()))
        assert not page.exists()
        begun.send(signal.SIGKILL)
        begun.process.wait(30)
    go_on.touch()
    await_true(lambda: not fleet.project.processes(), "what stands in for pg_dump did not end")
    story = read_story(line for path in fleet.project.logs.glob("*.jsonl") for line in path.read_text().splitlines())
    assert (story.is_cut_off, story.verdict) == (True, "broken")
    assert "it was killed" in Words(render_html(story)).text


def test_a_report_without_its_extra_is_refused_at_the_start(project: Project) -> None:
    (project.folder / "sitecustomize.py").write_text(WITHOUT_MATPLOTLIB)
    run = project.run("--report-html=run.html", environ={"PYTHONPATH": str(project.folder)})
    assert run.status == 4, run.output
    assert "  kept:     nothing was run" in run.output
    assert "pip install -e '.[report]'" in run.output
    assert not project.logs.exists()


def test_a_file_that_is_no_report_is_never_written_over(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("prod:\n")
    (tmp_path / "link.html").symlink_to(inventory)
    (tmp_path / "notes.md").write_text("an opsproof report shows RTO\n")
    notes = tmp_path / "notes.md"
    for named in (
        inventory,
        notes,
        tmp_path,
        tmp_path / "link.html",
        Path("/proc/none/run.html"),
        inventory / "run.html",
    ):
        with pytest.raises(
            pytest.UsageError, match=r"(?s)--report-html.*expected:.*hint:     --report-html=report.html"
        ):
            claim_file("--report-html", str(named))
    assert inventory.read_text() == "prod:\n"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["hosts.yml", "link.html", "notes.md"]


def test_an_earlier_report_gives_way(tmp_path: Path) -> None:
    story = read_story(drill().lines)
    for name, text in (("a.html", render_html(story)), ("a.md", render_markdown(story)), ("empty", "")):
        (tmp_path / name).write_text(text)
        assert claim_file("--report-html", str(tmp_path / name)) == tmp_path / name
    assert claim_file("--report-md", str(tmp_path / "new" / "a.md")).parent.is_dir()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["new"]


def test_nothing_that_a_journal_says_is_markup() -> None:
    page = render_html(read_story(drill().lines))
    words = Words(page)
    assert not words.tags & {"script", "b", "link", "img", "iframe", "object"}
    assert "<script>alert('x')</script>" in words.text
    assert "{{ 7 * 7 }}" in words.text
    journal = JournalLines(target=HOSTILE)
    journal.begin(HOSTILE, steps={HOSTILE: HOSTILE})
    journal.phase(HOSTILE, 0, 1)
    journal.add(1, "outage", **{HOSTILE: {HOSTILE: [HOSTILE]}})
    journal.step(1, HOSTILE, "failed", error=HOSTILE)
    journal.end(2)
    assert not Words(render_html(read_story(journal.lines, journal=HOSTILE))).tags & {"script", "b"}


def test_a_report_of_the_same_journal_is_the_same() -> None:
    assert render_html(read_story(drill().lines)) == render_html(read_story(drill().lines))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


def many() -> JournalLines:
    """A fleet of which one is hostile, one is cut off, and one was never begun."""
    journal = drill()
    for target in ("wiki", HOSTILE, "a-target-with-a-name-of-the-longest-kind.of.some.department.example"):
        journal.add(1, "procedure begins", target=target, procedure="P", steps={"test_dump": "It dumps."})
        journal.add(1, "phase begins", target=target, phase="dump")
        journal.add(2.5, "phase ends", target=target, phase="dump", outcome="done")
        journal.step(3, "test_dump", target=target, procedure="P")
    outcome = {"restore": "passed", "validation": "passed", "rows": {f"public.t{n}": [n, n] for n in range(16)}}
    journal.add(4, "drill finished", target="wiki", outcome=outcome)
    journal.add(4, "warning", target="late", message="late was not begun")
    return journal


@pytest.mark.slow
@pytest.mark.parametrize("shown", ["drill", "cut", "many", "backup"])
def test_in_a_browser_nothing_overhangs_and_everything_can_be_read(
    page: Page, shown: str, tmp_path: Path, wheel_postgres: PostgresServer
) -> None:
    """At the width of phones, desks and paper, light and dark; and nothing is asked of any network."""
    path = tmp_path / f"{shown}.html"
    if shown == "backup":
        with fleet_of(1, wheel_postgres, tmp_path / "project") as fleet:
            path.write_text(report(fleet.project)[1])
    else:
        journal = {"drill": drill, "cut": lambda: JournalLines(lines=drill().lines[:9]), "many": many}[shown]()
        path.write_text(render_html(read_story(journal.lines, has_ended=shown != "cut", journal=HOSTILE)))
    asked = len(page.requests)
    pictures = set()
    for width, scheme, media in [
        *((width, scheme, "screen") for width in (SMALLEST, PHONE, DESK) for scheme in ("light", "dark")),
        (PAPER, "dark", "print"),
    ]:
        page.show(width, scheme=scheme, media=media)
        page.open(path)
        assert find_faults(page) == {}, f"{shown} at {width}, {scheme}, {media}"
        assert page.ask("return window.innerWidth") == width
        # Each timeline is there twice, and is seen in the form for this width.
        seen = "return [...new Set([...document.querySelectorAll('figure svg')].filter(one => one.clientWidth)"
        assert page.ask(f"{seen}.map(one => one.getAttribute('class')))]") == ["narrow" if width <= PHONE else "wide"]
        if media == "screen":
            folded = page.ask("return document.querySelectorAll('details:not([open])').length")
            assert folded == (1 if shown == "many" else 0)
        pictures.add(page.photograph(tmp_path / f"{width}-{scheme}-{media}.png").read_bytes())
    assert len(pictures) == 7
    # Paper is light, whatever the screen is, and has what is folded up on screens.
    assert page.ask("return getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert page.ask("return [...document.querySelectorAll('details table')].every(one => one.checkVisibility())")
    assert page.print(tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF-")
    assert len(page.requests) - asked == 7
    assert (page.foreign_requests, page.complaints) == ([], [])


@pytest.mark.slow
def test_the_faults_that_are_looked_for_are_found(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "faulty.html"
    path.write_text(
        "<meta name=viewport content='width=device-width, initial-scale=1, minimum-scale=1'><body>"
        "<h2>a</h2><h4 style='color: #999; background: #fff'>pale</h4><table><tr><th>x</th></tr></table>"
        "<svg viewBox='0 0 100 20' width=100><text x=0 y=10 fill=#777>one</text><text x=3 y=12>two</text></svg>"
        "<p style='width: 600px'>wide</p><img src='https://example.invalid/x.png'><div id=i></div><div id=i></div>"
    )
    page.show(PHONE)
    page.open(path)
    found = find_faults(page)
    assert set(found) == {"overhang", "overlapping", "contrast", "rules"}
    assert "one lies upon two" in found["overlapping"]
    for word in (
        "0 h1",
        "h2 after h0",
        "h4 after h2",
        "th without scope",
        "without caption",
        "svg without",
        "two of i",
    ):
        assert any(word in one for one in found["rules"]), word
    assert page.foreign_requests == ["https://example.invalid/x.png"]
