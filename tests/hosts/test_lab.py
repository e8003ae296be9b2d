"""The lab itself: that its hosts are what tests on them take them for, and leave nothing."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path

import pytest

from opsproof.errors import CommandFailed, ConfigurationError
from tests.lab.debian_base import DebianBase, find_base, lab_folder
from tests.lab.debian_host import DebianHost
from tests.lab.lent_hosts import remove_orphans
from tests.lab.network import RUN, find_link, release, reserve
from tests.lab.nspawn import Process
from tests.lab.ssh_login import SshLogin

pytest_plugins = ["tests.lab.lab_hosts"]
pytestmark = pytest.mark.lab

REPOSITORY = Path(__file__).parents[2]
FILESTORE = "/var/lib/odoo/filestore"


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


def is_listening(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 3).close()
    except OSError:
        return False
    return True


def test_is_a_debian_with_systemd_as_pid_1(lab_host: DebianHost) -> None:
    assert lab_host.run("cat /proc/1/comm") == "systemd"
    assert lab_host.run("systemctl is-system-running") == "running"
    assert lab_host.run("hostname") == lab_host.name
    assert "bullseye" in lab_host.run("cat /etc/os-release")
    assert lab_host.run("systemctl is-enabled ssh postgresql odoo") == "enabled\nenabled\nenabled"


def test_ops_logs_in_and_may_sudo(lab_host: DebianHost) -> None:
    assert lab_host.run("id -un", user="ops") == "ops"
    assert lab_host.run("sudo -n id -un", user="ops") == "root"
    assert lab_host.run("sudo -n -u postgres id -un", user="ops") == "postgres"


def test_failing_command_says_which_and_why(lab_host: DebianHost) -> None:
    with pytest.raises(CommandFailed) as caught:
        lab_host.run("echo reason >&2; exit 3")
    assert "ended with 3" in str(caught.value)
    assert "reason" in str(caught.value)


def test_another_host_key_is_refused(lab_host: DebianHost, tmp_path: Path) -> None:
    login = SshLogin(lab_host.name, tmp_path)
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True, timeout=60)
    login.write(lab_host.address, lab_host.key, " ".join(Path(f"{other}.pub").read_text().split()[:2]))

    done = subprocess.run(login.argv("true"), capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_postgres_knows_its_peers_behind_the_socket(lab_host: DebianHost) -> None:
    assert lab_host.run("cd /; sudo -u odoo psql -XAtd prod -c 'SELECT current_user'") == "odoo"
    assert lab_host.sql("SELECT current_setting('server_version_num')::int / 10000") == "13"

    refused = lab_host.attempt("cd /; psql -XAtd prod -U odoo -c 'SELECT 1'")

    assert refused.returncode == 2
    assert "Peer authentication failed" in refused.stderr
    assert is_listening(lab_host.address, 22)
    assert not is_listening(lab_host.address, 5432)


def test_odoo_serves_the_database_that_its_conf_does_not_name(lab_host: DebianHost) -> None:
    lab_host.await_odoo()

    assert "db_name" not in lab_host.run("cat /etc/odoo/odoo.conf")
    assert xmlrpc.client.ServerProxy(f"{lab_host.odoo_url}/xmlrpc/2/db").list() == ["prod"]
    common = xmlrpc.client.ServerProxy(f"{lab_host.odoo_url}/xmlrpc/2/common")
    assert str(common.version()).startswith("{'server_version': '14.0")
    assert common.authenticate("prod", "admin", "admin", {}) == 2
    installed = "SELECT count(*) FROM ir_module_module WHERE state = 'installed' AND name IN ('base', 'web', 'mail')"
    assert lab_host.sql(installed) == "3"


def test_cut_host_is_silent_and_works_on(lab_host: DebianHost) -> None:
    with subprocess.Popen(lab_host.login.argv("sleep 2; echo done"), stdout=subprocess.PIPE) as session:
        lab_host.run("true")
        lab_host.cut()
        try:
            unreachable = lab_host.attempt("true")
            assert unreachable.returncode == 255
            assert "timed out" in unreachable.stderr
            assert session.poll() is None  # nobody told it
            assert lab_host.inside("hostname") == lab_host.name
        finally:
            lab_host.join()
        assert session.communicate(timeout=30)[0] == b"done\n"
    assert lab_host.run("hostname") == lab_host.name


def test_disk_is_small_for_a_while(lab_host: DebianHost) -> None:
    looks = f"cd {FILESTORE}; find . -printf '%p %m %u %g %T@\\n' | sort; find . -type f | sort | xargs sha256sum"
    before = lab_host.run(looks)
    write = f"runuser -u odoo -- dd if=/dev/zero of={FILESTORE}/more bs=64k count=%d status=none"

    with lab_host.small_disk(FILESTORE, room=1_000_000):
        assert lab_host.run(looks) == before
        lab_host.run(write % 8)
        full = lab_host.attempt(write % 32)
        assert full.returncode == 1
        assert "No space left on device" in full.stderr

    assert "/prod" in before
    assert lab_host.run(looks) == before


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
