"""The lab itself: that its hosts are what tests on them take them for."""

from __future__ import annotations

import subprocess
import xmlrpc.client
from pathlib import Path

import pytest

from opsproof.errors import CommandFailed
from tests.lab.debian_host import DebianHost
from tests.lab.network import is_listening
from tests.lab.ssh_login import SshLogin

pytest_plugins = ["tests.lab.lab_hosts"]
pytestmark = pytest.mark.lab

FILESTORE = "/var/lib/odoo/filestore"


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
