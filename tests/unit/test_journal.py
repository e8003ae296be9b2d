"""The journal: what it writes survives a kill, is private, and holds no secret."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from opsproof.chain import FIRST
from opsproof.errors import ConfigurationError, ProofError
from opsproof.journal import Journal, Progress, Redactor, open_private

KILLED = """
import os, signal, sys
from pathlib import Path
from opsproof.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(200):
    journal.record("step", number=number)
os.kill(os.getpid(), signal.SIGKILL)
"""
AWKWARD_SECRETS = [
    "p@ss/w:rd?#",
    'qu"ote\\back',
    "it's 100 % mine",
    "schlüssel&Größe",
    'schlüß"el\\',
    "tab\tand\nline",
    "a+b=c/d",
]


def events(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_event_is_in_the_file_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert [event["number"] for event in events(path)] == list(range(200))


def test_file_and_folder_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        journal = Journal(tmp_path / "logs" / "run.jsonl")
    finally:
        os.umask(before)
    journal.close()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "logs", tmp_path / "logs" / "run.jsonl")]
    assert modes == [0o700, 0o600]


def test_a_folder_that_cannot_be_made_is_an_error_with_the_option_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        open_private(tmp_path / "file" / "run.jsonl")
    assert "--logs" in caught.value.hint
    assert str(tmp_path / "file") in caught.value.expected


def test_an_event_has_a_time_a_name_and_its_fields(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.jsonl")
    journal.record("stored", bytes=12, path=Path("/x"), names=("a", "b"), text="Größe\nzwei")
    journal.close()
    (event,) = events(tmp_path / "run.jsonl")
    assert str(event.pop("time")).endswith("+00:00")
    assert event.pop("previous") == FIRST
    assert event == {"event": "stored", "bytes": 12, "path": "/x", "names": ["a", "b"], "text": "Größe\nzwei"}


def test_a_file_name_that_is_no_utf_8_can_be_recorded(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.jsonl")
    journal.record("file", name=os.fsdecode(b"caf\xe9"))
    journal.record("after")
    journal.close()
    assert [event["event"] for event in events(tmp_path / "run.jsonl")] == ["file", "after"]


def test_events_after_close_go_nowhere(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.jsonl")
    journal.record("one")
    journal.close()
    journal.record("two")
    journal.close()
    assert [event["event"] for event in events(tmp_path / "run.jsonl")] == ["one"]


def test_a_phase_is_timed_and_says_how_it_ended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.jsonl")
    with journal.phase("dump", target="app"):
        pass
    with pytest.raises(ProofError), journal.phase("dump"):
        raise ProofError("no")
    journal.close()
    written = events(tmp_path / "run.jsonl")
    assert [(one["event"], one.get("outcome")) for one in written] == [
        ("phase begins", None),
        ("phase ends", "done"),
        ("phase begins", None),
        ("phase ends", "failed"),
    ]
    assert written[1]["target"] == "app"
    assert list(journal.phases) == ["dump"]
    assert journal.phases["dump"] >= 0


def test_progress_reaches_every_listener_and_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.jsonl")
    heard: list[tuple[int, Progress]] = []
    journal.listen(lambda progress: heard.append((1, progress)))
    journal.listen(lambda progress: heard.append((2, progress)))
    progress = Progress("dump", "pg_dump", 5, None, 0.1)
    journal.report(progress)
    journal.close()
    assert heard == [(1, progress), (2, progress)]
    assert events(tmp_path / "run.jsonl") == []


def test_lines_for_people_are_in_the_log_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path / "run.jsonl")
    with caplog.at_level("INFO", logger="opsproof"):
        journal.info("100 % done")
        journal.warn("look here")
    journal.close()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "100 % done"),
        ("WARNING", "look here"),
    ]
    assert [(one["event"], one["message"]) for one in events(tmp_path / "run.jsonl")] == [
        ("info", "100 % done"),
        ("warning", "look here"),
    ]


@pytest.mark.parametrize("secret", AWKWARD_SECRETS)
def test_a_secret_is_blotted_out_in_every_form_that_a_line_may_write(secret: str, tmp_path: Path) -> None:
    redactor = Redactor()
    redactor.add(secret)
    journal = Journal(tmp_path / "run.jsonl", redactor)
    forms = [secret, quote(secret, safe=""), quote(secret), quote_plus(secret), repr(secret), json.dumps(secret)]
    for form in forms:
        journal.record("error", text=f"before {form} after")
    journal.close()
    text = (tmp_path / "run.jsonl").read_text(encoding="utf-8")
    for line in text.splitlines():
        inner = json.loads(line)["text"]
        assert inner.startswith("before ")
        assert inner.endswith(" after")
        assert secret not in inner
        assert quote(secret, safe="") not in inner
        assert json.dumps(secret)[1:-1] not in inner
        assert json.dumps(secret, ensure_ascii=False)[1:-1] not in line


def test_lower_case_percent_encoding_is_blotted_out() -> None:
    redactor = Redactor()
    redactor.add("a/b@c:d")
    assert redactor.clean("postgresql://u:a%2fb%40c%3ad@h/db") == "postgresql://u:***@h/db"


def test_the_longer_of_two_secrets_goes_first() -> None:
    redactor = Redactor()
    redactor.add("hunter")
    redactor.add("hunter2-and-more")
    assert redactor.clean("hunter2-and-more hunter") == "*** ***"


def test_three_characters_are_no_secret() -> None:
    redactor = Redactor()
    redactor.add("sql")
    redactor.add("")
    assert redactor.clean("postgresql") == "postgresql"
