"""Commands and pipes over a real sshd: the same as here, with nothing of them left on the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from opsproof.errors import CommandFailed, CommandTimeout, HostError, ProgramMissing
from opsproof.system.hosts import ssh
from opsproof.system.hosts.carrying import RUN
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.pipe import Pipe
from opsproof.system.hosts.transport import close_connections
from opsproof.target import Connection
from tests.lab.action_run import REPOSITORY
from tests.lab.ssh_server import SshServer, ssh_server
from tests.lab.waiting import await_true

__all__ = ["ssh_server"]


@pytest.fixture
def host(ssh_server: SshServer) -> Iterator[Host]:
    yield Host(ssh_server.connection)
    close_connections()


def marked(run: str = RUN) -> list[int]:
    """Return the processes of this machine that a run has started through a host."""
    found = []
    for one in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"OPSPROOF_RUN={run}".encode() in one.read_bytes():
                found.append(int(one.parent.name))
        except OSError:
            continue
    return found


class TestRun:
    def test_output_errors_and_status_are_returned(self, host: Host) -> None:
        done = host.run("sh", "-c", "cat; echo err >&2; exit 3", stdin=b"in\0put", accept=(0, 3))
        assert (done.status, done.stdout, done.stderr) == (3, "in\0put", "err\n")

    def test_no_shell_reads_the_arguments(self, host: Host) -> None:
        words = ("$HOME", "`id`", "a  b", "'", '"', ";", "*", "", "-n\n", "ü")
        assert host.run("printf", "%s|", *words).stdout == "|".join(words) + "|"

    def test_a_variable_reaches_the_command_and_no_process_list(self, host: Host) -> None:
        secret = "it's\n a $ecret `id` \\ \"\n"
        with host.pipe(
            "sh", "-c", 'printf "%s" "$PGPASSWORD"; exec 1>&-; sleep 30', env={"PGPASSWORD": secret}
        ) as pipe:
            assert pipe.read() == secret.encode()
            argv = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
            assert not any(b"$ecret" in one for one in argv)

    def test_nothing_else_of_this_process_reaches_the_host(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for hosts")
        monkeypatch.setenv("PGHOST", "elsewhere")
        names = {line.split("=")[0] for line in host.run("env").stdout.splitlines()}
        assert not names & {"AWS_SECRET_ACCESS_KEY", "PGHOST"}
        assert "OPSPROOF_RUN" in names

    def test_a_missing_program_is_named_with_its_package(self, host: Host) -> None:
        with pytest.raises(ProgramMissing, match="pg_dump not found") as caught:
            host.run("/no/pg_dump")
        assert "apt-get install postgresql-client" in caught.value.hint

    def test_a_file_that_may_not_be_run(self, host: Host, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("x")
        with pytest.raises(CommandFailed, match="text cannot be run"):
            host.run(str(tmp_path / "text"))

    def test_a_signal_is_told_from_a_lost_connection(self, host: Host) -> None:
        with pytest.raises(CommandFailed, match="ended with exit status 137"):
            host.run("sh", "-c", "kill -9 $$")

    def test_a_command_that_takes_too_long_is_ended_there(self, host: Host) -> None:
        with pytest.raises(CommandTimeout, match="sleep did not end within 0 seconds"):
            host.run("sleep", "60", timeout=0.4)
        assert marked() == []

    @pytest.mark.parametrize("account", ["", "nobody"])
    def test_an_interrupted_command_has_ended_there_before_anything_else_is_done(
        self, host: Host, account: str
    ) -> None:
        """Beside an undo a command must not go on: it may write what the undo takes back."""
        stubborn = "trap '' TERM; sleep 300 & while :; do sleep 1; done"

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 1.5)
            with pytest.raises(KeyboardInterrupt):
                host.as_user(account).run("sh", "-c", stubborn)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert marked() == []

    def test_another_account(self, host: Host) -> None:
        assert host.as_user("nobody").account == "nobody"
        assert host.as_user("nobody").run("sh", "-c", 'printf "%s" "$A"', env={"A": "x"}).stdout == "x"
        assert host.account == "root"

    def test_programs_and_files_are_those_of_the_host(self, host: Host, tmp_path: Path) -> None:
        assert host.find_program("sh")
        assert host.find_program("no-such-program") is None
        assert host.is_executable("/bin/sh")
        assert not host.is_executable(str(tmp_path / "nothing"))
        assert not host.is_executable(str(tmp_path))

    def test_testinfra_sees_the_host(self, host: Host, tmp_path: Path) -> None:
        (tmp_path / "here").write_text("x")
        assert host.testinfra.file(str(tmp_path / "here")).content_string == "x"
        assert not host.testinfra.file(str(tmp_path / "gone")).exists


class TestPipe:
    def test_much_goes_there_and_back_unchanged(self, host: Host) -> None:
        sent = os.urandom(1 << 20) * 20

        def write(pipe: Pipe) -> None:
            pipe.write(sent)
            pipe.end_input()

        with host.pipe("cat", feed=True) as pipe, ThreadPoolExecutor(1) as writer:
            writing = writer.submit(write, pipe)
            received = bytearray()
            while piece := pipe.read():
                received += piece
            writing.result()
            pipe.finish()
        assert received == sent

    def test_the_end_of_a_pipe_is_the_end_of_its_command(self, host: Host) -> None:
        with host.pipe("sh", "-c", "while echo more; do sleep 0.1; done") as pipe:
            assert pipe.read().startswith(b"more")
        assert marked() == []

    def test_a_failure_carries_the_last_lines(self, host: Host) -> None:
        with host.pipe("sh", "-c", "seq 1 100 >&2; exit 4") as pipe:
            while pipe.read():
                pass
            with pytest.raises(CommandFailed, match="sh ended with exit status 4") as caught:
                pipe.finish()
        assert caught.value.found.splitlines()[-1] == "100"


def test_more_commands_at_once_than_sshd_allows_in_a_connection(host: Host, ssh_server: SshServer) -> None:
    with ThreadPoolExecutor(20) as pool:
        pools = [pool.submit(host.run, "sh", "-c", "sleep 1; echo $0", str(number)) for number in range(20)]
        assert [one.result().stdout for one in pools] == [f"{number}\n" for number in range(20)]
    assert len(ssh_server.sessions()) <= 3


class TestReach:
    def refused(self, server: SshServer, words: str, **change: object) -> HostError:
        with pytest.raises(HostError, match=words) as caught:
            Host(replace(server.connection, **change)).run("true")  # type: ignore[arg-type]
        return caught.value

    def test_a_stranger_s_host_key(self, ssh_server: SshServer, tmp_path: Path) -> None:
        (tmp_path / "known").write_text(
            (ssh_server.folder / "known_hosts").read_text().split()[0]
            + " " + (ssh_server.folder / "key.pub").read_text()
        )  # fmt: skip
        args = f"-F none -o IdentitiesOnly=yes -o UserKnownHostsFile={tmp_path}/known"
        error = self.refused(ssh_server, "is not known by its host key", ssh_common_args=args)
        assert "ssh-keyscan" in error.hint
        assert error.kept == "nothing was sent"

    def test_a_host_that_nobody_knows(self, ssh_server: SshServer) -> None:
        args = "-F none -o IdentitiesOnly=yes -o UserKnownHostsFile=/dev/null"
        self.refused(ssh_server, "is not known by its host key", ssh_common_args=args)

    def test_a_key_that_it_does_not_know(self, ssh_server: SshServer, tmp_path: Path) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
        error = self.refused(ssh_server, "does not let", private_key_file=str(tmp_path / "other"))
        assert "ansible_user" in error.hint

    def test_nobody_answers(self, ssh_server: SshServer) -> None:
        assert "refused" in self.refused(ssh_server, "cannot be reached by ssh", port=1).found

    def test_a_connection_of_a_kind_that_nobody_knows(self) -> None:
        with pytest.raises(HostError, match="reached by winrm") as caught:
            Host(Connection(kind="winrm", host="files.example"))
        assert "docker" in caught.value.expected


class TestLifeline:
    """What a run leaves on the host ends there, whoever ended the run."""

    def begin(self, server: SshServer) -> tuple[subprocess.Popen[str], str]:
        script = dedent("""
            import sys
            from opsproof.system.hosts.carrying import RUN
            from opsproof.system.hosts.host import Host
            from opsproof.target import Connection
            host = Host(eval(sys.argv[1]))
            with host.pipe("sleep", "300") as pipe:
                print(RUN, flush=True)
                pipe.read()
        """)
        argv = [sys.executable, "-c", script, repr(server.connection)]
        process = subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout is not None
        run = process.stdout.readline().strip()
        await_true(lambda: marked(run) != [], "nothing runs on the host", 10)
        return process, run

    def test_a_killed_runner(self, ssh_server: SshServer) -> None:
        process, run = self.begin(ssh_server)
        process.kill()
        process.wait()
        await_true(lambda: marked(run) == [], "it still runs on the host", 5)
        await_true(lambda: ssh_server.sessions() == [], "a connection stands", 15)

    @pytest.mark.slow
    def test_a_silent_runner(self, ssh_server: SshServer) -> None:
        """A frozen one is as silent as one whose network was cut."""
        process, run = self.begin(ssh_server)
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            time.sleep(ssh.SILENCE_SECONDS - 8)
            assert marked(run) != []
            await_true(lambda: marked(run) == [], "it still runs on the host", 15)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
