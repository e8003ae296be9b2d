"""The chain of a journal: whatever is changed, left out or added is found, and told with its line."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from opsproof.archive.sealing.signature import load_signer
from opsproof.chain import FIRST, command, link_of, verify_chain
from opsproof.journal import Journal, Redactor
from opsproof.policies import Sealing
from tests.lab.sealing import new_signing_key

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "run.jsonl"
    made = Journal(path)
    for number in range(9):
        made.record("step", number=number)
    assert made.head == link_of(path.read_bytes().splitlines()[-1])
    made.close()
    return path


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_a_journal_as_it_was_written_is_whole(journal: Path) -> None:
    found = verify_chain(journal.read_bytes())
    assert (found.lines, found.faults) == (9, ())
    assert found.head == link_of(lines_of(journal)[-1])
    assert json.loads(lines_of(journal)[0])["previous"] == FIRST


@pytest.mark.parametrize("number", range(9))
def test_a_changed_line_is_found(journal: Path, number: int) -> None:
    head = verify_chain(journal.read_bytes()).head
    lines = lines_of(journal)
    lines[number] = lines[number].replace(f'"number": {number}'.encode(), b'"number": 77')
    faults = verify_chain(b"".join(lines), head).faults
    # The last one breaks nothing after it: the head that is known from elsewhere tells.
    expected = f"line {number + 2} does not follow line {number + 1}" if number < 8 else f"the head {head} is not in it"
    assert len(faults) == 1
    assert faults[0].startswith(expected)


@pytest.mark.parametrize("number", range(9))
def test_a_missing_line_is_found(journal: Path, number: int) -> None:
    head = verify_chain(journal.read_bytes()).head
    lines = lines_of(journal)
    del lines[number]
    faults = verify_chain(b"".join(lines), head).faults
    assert len(faults) == 1
    expected = {0: "line 1 is not the first", 8: f"the head {head} is not in it"}
    assert faults[0].startswith(expected.get(number, f"line {number + 1} does not follow line {number}"))


def test_swapped_added_and_broken_lines_are_found(journal: Path) -> None:
    lines = lines_of(journal)
    assert len(verify_chain(b"".join([*lines[:3], lines[4], lines[3], *lines[5:]])).faults) == 3
    assert len(verify_chain(b"".join([*lines[:3], lines[2], *lines[3:]])).faults) == 1
    assert verify_chain(b"".join([*lines[:8], b"nonsense\n", lines[8]])).faults[0] == "line 9 is no line of a journal"
    assert "has no end" in verify_chain(b"".join(lines)[:-5]).faults[0]


def test_lines_after_a_known_head_are_no_fault_but_told(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = link_of(lines_of(journal)[4])
    found = verify_chain(journal.read_bytes(), head)
    assert (found.faults, found.later) == ((), 4)
    assert command(["verify", str(journal), f"--head={head}"]) == 0
    assert "the last 4 of them follow the head that was given" in capsys.readouterr().out
    assert command(["verify", str(journal), f"--head={found.head}"]) == 0
    assert "follow the head" not in capsys.readouterr().out


def test_threads_and_processes_of_a_run_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    script = (
        "import sys; from pathlib import Path; from opsproof.plugin.logbook import TargetJournal\n"
        "one = TargetJournal(Path(sys.argv[1]), shared=True, worker=sys.argv[2])\n"
        "for number in range(100): one.record('step', number=number, text='x' * number * 100)"
    )
    argv = [[sys.executable, "-c", script, str(path), f"gw{number}"] for number in range(3)]
    running = [subprocess.Popen(one, cwd=REPOSITORY) for one in argv]
    assert [one.wait(60) for one in running] == [0, 0, 0]
    journal = Journal(tmp_path / "alone.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: journal.record("step", number=number), range(300)))
    for one, head in ((path, ""), (tmp_path / "alone.jsonl", journal.head)):
        found = verify_chain(one.read_bytes(), head)
        assert (found.lines, found.faults) == (300, ())


def test_a_secret_that_is_part_of_a_link_breaks_no_chain(tmp_path: Path) -> None:
    redactor = Redactor()
    redactor.add("0000")
    made = Journal(tmp_path / "run.jsonl", redactor)
    made.record("one", text="a 0000 b")
    made.record("two")
    assert verify_chain((tmp_path / "run.jsonl").read_bytes()).faults == ()
    assert json.loads(lines_of(tmp_path / "run.jsonl")[0])["text"] == "a *** b"


def verify(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "opsproof.journal", "verify", *arguments]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_says_what_it_found(journal: Path) -> None:
    head = verify_chain(journal.read_bytes()).head
    done = verify(str(journal))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"9 lines, whole; its head is {head}" in done.stdout
    assert verify(str(journal), f"--head={head}").returncode == 0
    journal.write_bytes(b"".join(lines_of(journal)[:-1]))
    assert verify(str(journal)).returncode == 0
    done = verify(str(journal), f"--head={head}")
    assert done.returncode == 1
    assert "is not in it" in done.stderr
    assert verify(str(journal.parent / "none")).returncode == 2


def test_a_journal_without_a_line_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    assert verify(str(tmp_path / "empty.jsonl")).returncode == 1


def test_a_signature_covers_every_byte(journal: Path, tmp_path: Path) -> None:
    key, other = new_signing_key(tmp_path), new_signing_key(tmp_path, "other")
    public = f"--key={key.public}"
    assert "it is not signed" in verify(str(journal), public).stderr
    signer = load_signer(Sealing(signing_key_file=str(key.private)))
    assert signer is not None
    (tmp_path / f"{journal.name}.sig").write_bytes(signer.sign(journal.read_bytes()))
    done = verify(str(journal), public)
    assert (done.returncode, done.stderr) == (0, "")
    assert "whole, signed; its head is" in done.stdout
    assert "the run was killed, goes on, or lines at the end are missing" in done.stdout
    assert "not of these bytes by this key" in verify(str(journal), f"--key={other.public}").stderr
    assert verify(str(journal), f"--key={key.private}").returncode == 2
    journal.write_bytes(b"".join(lines_of(journal)[:-1]))
    assert verify(str(journal), public).returncode == 1
