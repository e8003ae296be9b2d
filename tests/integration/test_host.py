"""Commands and pipes: every exit status is read, every process ends, and nothing secret is handed on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from opsproof.errors import CommandFailed, CommandTimeout, HostError, Interrupted, ProgramMissing
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.undivided import interrupt
from opsproof.target import Connection
from tests.lab.captured import children

HOST = Host(Connection())
# Prints its own process id and that of a child, which would both go on for a minute.
FAMILY = "sleep 60 & echo $$ $!; wait"


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def await_end(*pids: int) -> bool:
    """Tell whether processes have ended, which the kernel may take a moment for."""
    deadline = time.monotonic() + 3
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(is_running, pids))


class TestRun:
    def test_output_errors_and_status_are_returned(self) -> None:
        done = HOST.run("sh", "-c", "echo out; echo err >&2; exit 3", accept=(0, 3))
        assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")

    def test_another_status_is_an_error_with_the_last_lines_of_stderr(self) -> None:
        with pytest.raises(CommandFailed, match="sh ended with exit status 3") as caught:
            HOST.run("sh", "-c", "seq 1 100 >&2; exit 3", accept=(0, 1))
        assert caught.value.found.splitlines() == [str(number) for number in range(61, 101)]

    def test_a_signal_is_named(self) -> None:
        with pytest.raises(CommandFailed, match="was killed by signal 9"):
            HOST.run("sh", "-c", "kill -9 $$")

    def test_no_shell_reads_the_arguments(self) -> None:
        words = ("$HOME", "`id`", "a  b", "'", '"', ";", "*", "", "-n\n")
        assert HOST.run("printf", "%s|", *words).stdout == "|".join(words) + "|"

    def test_stdin_is_what_was_given(self) -> None:
        assert HOST.run("wc", "-c", stdin=b"\0" * 300_000).stdout.strip() == "300000"

    @pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "/dev/null/program"])
    def test_a_missing_program_is_named(self, program: str) -> None:
        with pytest.raises(ProgramMissing, match="program not found"):
            HOST.run(program)

    def test_a_missing_client_program_comes_with_its_package(self) -> None:
        with pytest.raises(ProgramMissing, match="pg_dump not found") as caught:
            HOST.run("/nowhere/pg_dump")
        assert caught.value.hint == "apt-get install postgresql-client"

    def test_a_file_that_may_not_be_run_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "program").write_text("#!/bin/sh\n")
        with pytest.raises(HostError, match="program"):
            HOST.run(str(tmp_path / "program"))

    def test_a_command_that_takes_too_long_is_killed_with_its_children(self, tmp_path: Path) -> None:
        before = children()
        with pytest.raises(CommandTimeout, match="did not end within"):
            HOST.run("sh", "-c", f"exec >{tmp_path}/pids; {FAMILY}", timeout=0.5)
        assert await_end(*map(int, (tmp_path / "pids").read_text().split()))
        assert children() == before

    def test_what_a_command_said_before_it_took_too_long_is_told(self) -> None:
        with pytest.raises(CommandTimeout) as caught:
            HOST.run("sh", "-c", "echo begun; printf 'Go on? [y/N] ' >&2; sleep 60", timeout=0.5)
        assert caught.value.printed == "begun\nGo on? [y/N]"
        assert caught.value.found.endswith("its last lines:\nbegun\nGo on? [y/N]")
        with pytest.raises(CommandTimeout, match="it printed nothing"):
            HOST.run("sleep", "60", timeout=0.1)

    def test_the_environment_has_neither_secrets_nor_libpqs_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        planted = (
            "PGPASSWORD",
            "PGHOST",
            "PGSERVICE",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "LANG",
            "PYTHONPATH",
        )
        for name in planted:
            monkeypatch.setenv(name, "planted")
        variables = dict(line.split("=", 1) for line in HOST.run("env", env={"OWN": "given"}).stdout.splitlines())
        assert "planted" not in variables.values()
        assert (variables["OWN"], variables["LC_ALL"], variables["PATH"]) == ("given", "C", os.environ["PATH"])

    def test_output_that_is_no_utf_8_is_no_fault(self) -> None:
        assert HOST.run("printf", r"caf\351\n").stdout.startswith("caf")


class TestPipe:
    def test_output_is_read_to_its_end(self) -> None:
        with HOST.pipe("sh", "-c", "head -c 1000000 /dev/zero; sleep 0.2; printf end") as pipe:
            pieces = list(iter(lambda: pipe.read(300_000), b""))
            pipe.finish()
        assert max(len(piece) for piece in pieces) <= 300_000
        assert b"".join(pieces) == bytes(1_000_000) + b"end"

    def test_a_failure_after_all_output_is_an_error(self) -> None:
        with HOST.pipe("sh", "-c", "echo plausible; echo why >&2; exit 1") as pipe:
            assert pipe.read() == b"plausible\n"
            with pytest.raises(CommandFailed, match="exit status 1") as caught:
                pipe.finish()
        assert caught.value.found == "why"

    def test_only_the_last_lines_of_stderr_are_kept(self) -> None:
        with HOST.pipe("sh", "-c", "seq 1 200000 >&2; exit 1") as pipe:
            assert pipe.read() == b""
            with pytest.raises(CommandFailed) as caught:
                pipe.finish()
        assert caught.value.found.splitlines() == [str(number) for number in range(199_961, 200_001)]

    def test_input_known_beforehand_may_be_more_than_a_pipe_holds(self) -> None:
        data = os.urandom(5_000_000)
        with HOST.pipe("cat", stdin=data) as pipe:
            assert b"".join(iter(pipe.read, b"")) == data
            pipe.finish()

    def test_input_can_be_written_piece_by_piece(self) -> None:
        with HOST.pipe("sort", feed=True) as pipe:
            pipe.write(b"b\n")
            pipe.write(b"a\n")
            pipe.end_input()
            assert pipe.read() == b"a\nb\n"
            pipe.finish()

    def test_writing_to_a_command_that_has_ended_is_an_error(self) -> None:
        with (
            HOST.pipe("sh", "-c", "echo no >&2; exit 4", feed=True) as pipe,
            pytest.raises(CommandFailed, match="exit status 4"),
        ):
            for _ in range(100):
                pipe.write(bytes(1 << 20))

    def test_writing_after_the_end_was_read_is_an_error_of_ours(self) -> None:
        with HOST.pipe("true", feed=True) as pipe:
            assert pipe.read() == b""
            pipe.finish()
            with pytest.raises(HostError):
                pipe.write(b"late")

    def test_a_command_without_an_input_cannot_be_written_to(self) -> None:
        with HOST.pipe("true") as pipe, pytest.raises(HostError, match="without an input"):
            pipe.write(b"x")

    def test_silence_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("opsproof.system.hosts.pipe.STALL_SECONDS", 0.3)
        with HOST.pipe("sh", "-c", "echo working on it >&2; sleep 60") as pipe:
            with pytest.raises(CommandTimeout, match="printed nothing") as caught:
                pipe.read()
            assert not is_running(pipe.pid)
        assert caught.value.found == "working on it"

    def test_a_command_that_closes_its_output_and_stays_is_killed(self) -> None:
        with HOST.pipe("sh", "-c", "exec >&- 2>&-; sleep 60") as pipe:
            assert pipe.read() == b""
            with pytest.raises(CommandTimeout, match="did not end"):
                pipe.finish(timeout=0.3)
            assert not is_running(pipe.pid)

    def test_leaving_the_block_ends_the_command_and_its_children(self) -> None:
        before = children()
        with HOST.pipe("sh", "-c", f"{{ {FAMILY}; }} | cat") as pipe:
            first = pipe.read(3)
            while b"\n" not in first:
                first += pipe.read(1)
        assert await_end(pipe.pid, *map(int, first.split()))
        assert children() == before

    def test_a_command_that_ignores_sigterm_is_killed(self) -> None:
        script = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
        )
        with HOST.pipe(sys.executable, "-c", script) as pipe:
            assert pipe.read(2) == b"1\n"
            started = time.monotonic()
            pipe.kill()
        assert not is_running(pipe.pid)
        assert time.monotonic() - started < 10

    def test_a_ctrl_c_at_the_terminal_does_not_reach_it(self) -> None:
        with HOST.pipe("sleep", "60") as pipe:
            assert os.getpgid(pipe.pid) != os.getpgid(0)
            assert os.getsid(pipe.pid) != os.getsid(0)

    def test_the_end_by_a_signal_is_an_error(self) -> None:
        with HOST.pipe("sleep", "60") as pipe:
            os.kill(pipe.pid, signal.SIGKILL)
            assert pipe.read() == b""
            with pytest.raises(CommandFailed, match="killed by signal 9"):
                pipe.finish()

    def test_a_missing_program_is_named(self) -> None:
        with pytest.raises(ProgramMissing, match="no-such-program not found"):
            HOST.pipe("no-such-program")


def test_testinfra_sees_the_same_host(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("x")
    assert HOST.testinfra.file(str(tmp_path / "here")).is_file


def test_programs_are_found_on_the_path_of_the_host(tmp_path: Path) -> None:
    assert HOST.find_program("sh")
    assert HOST.find_program("no-such-program") is None
    assert HOST.is_executable("/bin/sh")
    assert not HOST.is_executable(str(tmp_path / "nothing"))
    assert not HOST.is_executable(str(tmp_path))  # a folder, which anybody may enter


class InterruptedPopen(subprocess.Popen[bytes]):
    """A process that has been started, and a signal that arrives before anybody holds it."""

    born: ClassVar[list[int]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.born.append(self.pid)
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("start", [HOST.run, HOST.pipe], ids=["run", "pipe"])
def test_a_command_ends_also_where_a_signal_arrives_before_anybody_holds_it(
    start: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would write where the undo has just cleared away."""
    interruption = Interrupted("SIGTERM arrived")
    before = signal.signal(signal.SIGTERM, lambda *_: interrupt(interruption))
    monkeypatch.setattr(subprocess, "Popen", InterruptedPopen)
    try:
        with pytest.raises(Interrupted):
            start("sleep", "60")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert await_end(InterruptedPopen.born[-1])
