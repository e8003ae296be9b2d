"""A lab's hosts come and go: crashed, powered off, rebooted, reset, removed, side by side; and leave nothing."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opsproof.errors import ConfigurationError
from tests.lab.debian_base import DebianBase, find_base, lab_folder
from tests.lab.debian_host import DebianHost
from tests.lab.lent_hosts import remove_orphans
from tests.lab.network import RUN, find_link, is_listening, release, reserve
from tests.lab.nspawn import Process

pytest_plugins = ["tests.lab.lab_hosts"]
pytestmark = pytest.mark.lab

FILESTORE = "/var/lib/odoo/filestore"
REPOSITORY = Path(__file__).parents[2]


def traces_of(host: DebianHost, device: str) -> list[str]:
    """Return what of a host is on this machine: processes, mounts, groups, its link and its folder."""
    found = [f"process {path}" for path in Path("/proc").glob("[0-9]*") if mentions(path / "cmdline", host.name)]
    found += [f"mount of {path}" for path in Path("/proc").glob("[0-9]*") if mentions(path / "mounts", host.name)]
    found += [
        f"group {path}" for path in Path("/sys/fs/cgroup").rglob("opsproof-lab-*") if path.name[13:] == device[5:]
    ]
    paths = (Path("/sys/class/net", device), host.folder, RUN / device[5:])
    return found + [str(path) for path in paths if path.exists()]


def mentions(path: Path, text: str) -> bool:
    try:
        return text in path.read_text()
    except OSError:  # the process has ended
        return False


def test_crashed_host_boots_again_with_what_was_committed(fresh_lab_host: DebianHost) -> None:
    host = fresh_lab_host
    address = host.address
    host.run("echo kept >~/kept")
    host.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    with subprocess.Popen(host.login.argv("echo here; sleep 60"), stdout=subprocess.PIPE) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"here\n"
        host.crash()
        assert not host.is_running
        assert not is_listening(address, 22)
        assert session.poll() is None  # nobody told it
        session.kill()

    host.boot()

    assert host.address == address
    assert host.run("cat ~/kept") == "kept"
    assert host.sql("SELECT answer FROM kept") == "42"
    assert "was not properly shut down" in host.run("cat /var/log/postgresql/*.log")
    assert host.run("systemctl is-active odoo") == "active"


def test_powered_off_host_was_shut_down_in_order(fresh_lab_host: DebianHost) -> None:
    host = fresh_lab_host
    address = host.address
    host.run("echo kept >~/kept")

    host.down()
    host.boot()

    assert host.address == address
    assert host.run("cat ~/kept") == "kept"
    assert "was not properly shut down" not in host.run("cat /var/log/postgresql/*.log")


def test_host_reboots_itself(fresh_lab_host: DebianHost) -> None:
    host = fresh_lab_host
    before = host.machine.init

    host.attempt("systemctl reboot")
    deadline = time.monotonic() + 30
    while before.is_running:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    host.await_up()

    assert host.machine.init != before
    assert "Odoo" in host.journal("odoo")


def test_reset_host_is_pristine(fresh_lab_host: DebianHost) -> None:
    host = fresh_lab_host
    address = host.address
    identity = host.run("cat /etc/machine-id")
    host.run("systemctl stop odoo; cd /; rm -rf /var/lib/odoo/filestore; touch ~/mine; sudo -u postgres dropdb prod")

    host.reset()
    assert not host.is_running
    host.boot()

    assert host.address == address
    assert host.run("cat /etc/machine-id") != identity
    assert host.run("ls ~") == ""
    assert int(host.run(f"find {FILESTORE}/prod -type f | wc -l")) > 0
    host.await_odoo()


def test_two_hosts_stand_side_by_side(boot_lab_host: Callable[[str], DebianHost]) -> None:
    web, worker = boot_lab_host("web"), boot_lab_host("worker")

    assert web.address != worker.address
    assert [web.run("hostname"), worker.run("hostname")] == [web.name, worker.name]
    web.run(f"ping -c 1 -W 5 {worker.address}")
    web.run("touch ~/mine")
    assert worker.run("ls ~") == ""
    web.crash()
    assert worker.run("systemctl is-active postgresql") == "active"


def test_removed_host_leaves_nothing(lab_base: DebianBase) -> None:
    host = DebianHost(f"leaver-{secrets.token_hex(3)}", lab_base, owner=Process.of(os.getpid()))
    try:
        host.boot()
        link = find_link(host.folder)
        assert link is not None
        kinds = {trace.split()[0] for trace in traces_of(host, link.device)}
        places = {f"/sys/class/net/{link.device}", str(host.folder), f"{RUN}/{link.number}"}
        assert kinds == {"process", "mount", "group", *places}  # what is looked for can be found
    finally:
        host.remove()

    assert traces_of(host, link.device) == []


def test_host_of_a_killed_pytest_is_removed(lab_base: DebianBase) -> None:
    with subprocess.Popen(["sleep", "60"]) as owner:
        host = DebianHost(f"orphan-{secrets.token_hex(3)}", lab_base, owner=Process.of(owner.pid))
        try:
            host.boot()
            remove_orphans(lab_base)
            assert host.is_running
            owner.kill()
            owner.wait()
            remove_orphans(lab_base)
            assert not host.is_running
            assert not host.folder.exists()
        finally:
            host.remove()


def test_number_of_a_vanished_host_is_free_again(tmp_path: Path) -> None:
    gone, here = tmp_path / "gone", tmp_path / "here"
    gone.mkdir()
    here.mkdir()
    reserve(gone)
    gone.rmdir()
    link = reserve(here)
    try:
        assert find_link(gone) is None
        assert reserve(here) == link
    finally:
        release(link)
    assert find_link(here) is None


def test_base_is_built_once(lab_base: DebianBase) -> None:
    marker = (lab_base.folder / "built").stat().st_mtime_ns

    started = time.monotonic()
    again = find_base()

    assert again == lab_base
    assert (again.folder / "built").stat().st_mtime_ns == marker
    assert time.monotonic() - started < 2


def test_commands_by_hand(lab_base: DebianBase) -> None:
    def by_hand(*words: str) -> str:
        argv = [sys.executable, "-m", "tests.lab.debian_host", *words]
        done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
        return f"{done.returncode} {done.stdout}{done.stderr}".strip()

    name = f"by-hand-{secrets.token_hex(3)}"
    folder = lab_folder() / "hosts" / name
    try:
        assert by_hand("up", name).startswith(f"0 {name} is up at 198.")
        assert by_hand("ssh", name, "hostname") == f"0 {name}"
        assert by_hand("cut", name) == "0"
        assert by_hand("join", name) == "0"
        assert by_hand("crash", name) == "0"
        assert by_hand("ssh", name, "hostname").startswith("255 ")
        assert by_hand("up", name).startswith(f"0 {name} is up")
        assert by_hand("down", name) == "0"
        assert find_link(folder) is None
        assert (folder / "disk").is_dir()
        assert "does not run" in by_hand("cut", name)
    finally:
        assert by_hand("reset", name) == "0"
    assert not folder.exists()


@pytest.mark.parametrize("name", ["", "Erp", "a b", "-erp", "../erp"])
def test_name_that_is_no_hostname_is_refused(lab_base: DebianBase, name: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name for a host"):
        DebianHost(name, lab_base)
