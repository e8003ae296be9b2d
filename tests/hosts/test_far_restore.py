"""Restores of a real remote Odoo: it answers afterwards, and has every byte; and whatever breaks midway."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.lab.action_run import ActionRun, Project, require_failure
from tests.lab.debian_host import DebianHost
from tests.lab.odoo_host import ENVIRONMENT, FILESTORE, LOGINS, project_of
from tests.lab.odoo_rpc import OdooClient
from tests.lab.waiting import await_true

pytest_plugins = ["tests.lab.lab_hosts"]
pytestmark = pytest.mark.lab
RESTORE, RECOVER = "actions/test_restore.py", "actions/test_recover.py"
OWNERS = "find /var/lib/odoo/filestore -printf '%P %u:%g %m\\n' | sort"
SECOND = 8070
DESTROY = "systemctl stop odoo; cd /; runuser -u postgres -- dropdb prod; rm -r /var/lib/odoo/filestore/prod"
SINCE = "DROP TABLE IF EXISTS public.since; CREATE TABLE public.since (); ALTER TABLE public.since OWNER TO odoo"
# It starts only where the table is that the backup does not have.
FUSSY = """
mkdir -p /etc/systemd/system/odoo.service.d
printf '[Service]\\nExecStartPre=/bin/sh /etc/odoo/fussy.sh\\n' >/etc/systemd/system/odoo.service.d/fussy.conf
cat >/etc/odoo/fussy.sh <<'END'
exec psql -At prod -c "SELECT 1 / count(*) FROM pg_class WHERE relname = 'since'"
END
systemctl daemon-reload
"""


def succeed(project: Project, action: str, *arguments: str) -> ActionRun:
    run = project.run(*arguments, action=action, env=ENVIRONMENT)
    assert run.status == 0, run.output
    return run


def back_up(project: Project) -> None:
    run = project.run(env=ENVIRONMENT)
    assert run.status == 0, run.output


def page_of(host: DebianHost) -> int:
    with urllib.request.urlopen(f"{host.odoo_url}/web/login", timeout=30) as answer:
        return int(answer.status)


def stored_names(host: DebianHost) -> set[str]:
    return set(host.sql("SELECT DISTINCT store_fname FROM ir_attachment WHERE store_fname IS NOT NULL").split())


@contextmanager
def second_odoo(host: DebianHost) -> Iterator[OdooClient]:
    """Run another Odoo on the same server, which nobody stops: its selector shows what its cron takes in."""
    host.inside(
        "systemd-run --quiet --unit=odoo2 --uid=odoo --gid=odoo odoo -c /etc/odoo/odoo.conf"
        f" --http-port={SECOND} --longpolling-port=8071 --logfile=/var/log/odoo/second.log --max-cron-threads=2"
    )
    client = OdooClient(f"http://{host.address}:{SECOND}")

    def answers() -> bool:
        try:
            return client.databases() == ["prod"]
        except OSError:
            return False

    try:
        await_true(answers, "the second Odoo does not answer", 60)
        yield client
    finally:
        host.inside("systemctl stop odoo2")


@contextmanager
def watched(client: OdooClient) -> Iterator[set[str]]:
    """Note every database that an Odoo shows, as fast as it answers."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            try:
                seen.update(client.databases())
            except Exception:  # it was cut off during the swap
                time.sleep(0.02)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("login", LOGINS)
def test_a_lost_odoo_comes_back_with_every_byte_and_nobody_sees_it_being_built(
    login: str, fresh_lab_host: DebianHost
) -> None:
    host = fresh_lab_host
    host.await_odoo()
    odoo, content = OdooClient(host.odoo_url), os.urandom(300_000)
    attachment = odoo.attach("proof", content)
    names, owners = stored_names(host), host.inside(OWNERS)
    with project_of(host, login, health_url=f"{host.odoo_url}/web/login") as project:
        back_up(project)
        host.inside(
            "systemctl stop odoo; cd /; runuser -u postgres -- dropdb prod; rm -rf /var/lib/odoo/filestore/prod"
        )
        succeed(project, RESTORE)
        assert page_of(host) == 200
        assert odoo.read(attachment) == content
        assert stored_names(host) == names
        found = set(host.inside(f"cd {FILESTORE}; find . -type f -printf '%P\\n'").split())
        assert names <= found
        # Odoo's clean-up keeps empty markers below checklist, which are no files of anybody's.
        kept = {line for line in owners.splitlines() if "checklist" not in line}
        assert kept <= set(host.inside(OWNERS).splitlines())

        with second_odoo(host) as other, watched(other) as seen:
            succeed(project, RESTORE)
        assert seen == {"prod"}
        assert "prod__" not in host.inside("cat /var/log/odoo/second.log")
        assert odoo.read(attachment) == content
        succeed(project, RECOVER, "--undo")
        assert odoo.read(attachment) == content


class TestFaults:
    @pytest.fixture
    def project(self, lab_host: DebianHost) -> Iterator[Project]:
        """A pristine host, its backup, and one row that the backup does not have."""
        lab_host.await_odoo()
        with project_of(lab_host, "ops", health_url="http://127.0.0.1:8069/web/login") as made:
            back_up(made)
            lab_host.sql(
                "DROP TABLE IF EXISTS public.since; CREATE TABLE public.since (); ALTER TABLE since OWNER TO odoo"
            )
            yield made
            lab_host.join()

    def require_old(self, host: DebianHost) -> None:
        assert host.sql("SELECT to_regclass('public.since') IS NOT NULL") == "t"
        assert page_of(host) == 200

    def begin_to(self, project: Project, event: str, meddle: Callable[[], object]) -> ActionRun:
        """Begin a restore, and do something once its journal has an event or a step."""
        with project.begin(action=RESTORE, env=ENVIRONMENT) as begun:
            begun.wait_until(lambda: any(event in (one.get("step"), one.get("phase")) for one in begun.events()), 120)
            meddle()
            return begun.finish(240)

    def test_a_unit_that_will_not_start_with_the_restored_data(self, project: Project, lab_host: DebianHost) -> None:
        lab_host.inside(FUSSY)
        try:
            run = project.run(action=RESTORE, env=ENVIRONMENT)
        finally:
            lab_host.inside("rm -r /etc/systemd/system/odoo.service.d; systemctl daemon-reload")
        message = require_failure(run, "test_start_services", "systemd: odoo did not start", "journalctl -u odoo")
        assert "division by zero" in message
        self.require_old(lab_host)

    def test_the_network_is_cut_right_after_the_swap(self, project: Project, lab_host: DebianHost) -> None:
        run = self.begin_to(project, "test_swap", lambda: lab_host.cut())
        assert run.status == 1, run.output
        assert "cannot be reached by ssh" in run.output
        lab_host.join()
        succeed(project, RECOVER)
        assert page_of(lab_host) == 200
        assert lab_host.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'prod\\_\\_side%'") == "0"

    def test_the_server_is_restarted_while_the_side_database_is_built(
        self, project: Project, lab_host: DebianHost
    ) -> None:
        run = self.begin_to(project, "test_take_safety_backup", lambda: lab_host.inside("systemctl restart postgresql"))
        if run.status != 0:
            again = project.run(action=RECOVER, env=ENVIRONMENT)
            assert again.status == 0, again.output
            self.require_old(lab_host)

    def test_the_host_crashes_after_the_stop_and_starts_odoo_by_itself(
        self, project: Project, lab_host: DebianHost
    ) -> None:
        run = self.begin_to(project, "test_stop_services", lambda: lab_host.crash())
        assert run.status == 1, run.output
        lab_host.boot()
        lab_host.await_odoo()
        refused = project.run(action=RESTORE, env=ENVIRONMENT)
        assert "was not brought to its end" in refused.output or refused.status == 0, refused.output
        succeed(project, RECOVER)
        assert page_of(lab_host) == 200
        assert lab_host.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'prod\\_\\_side%'") == "0"

    def test_the_host_crashes_while_the_side_database_is_built(self, project: Project, lab_host: DebianHost) -> None:
        run = self.begin_to(project, "test_take_safety_backup", lab_host.crash)
        assert run.status == 1, run.output
        lab_host.boot()
        lab_host.await_odoo()
        succeed(project, RECOVER)
        self.require_old(lab_host)
        assert lab_host.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'prod\\_\\_side%'") == "0"

    def test_the_disk_of_the_filestore_is_full(self, project: Project, lab_host: DebianHost) -> None:
        """Found before anything changes; what fills up later than that is found when it does."""
        lab_host.inside(f"cd {FILESTORE}; mkdir /var/tmp/aside; mv ?? /var/tmp/aside/")
        try:
            with lab_host.small_disk("/var/lib/odoo/filestore", room=100_000):
                run = project.run(action=RESTORE, env=ENVIRONMENT)
        finally:
            lab_host.inside(f"cp -a /var/tmp/aside/* {FILESTORE}/; rm -r /var/tmp/aside")
        message = require_failure(run, "test_nothing_is_in_the_way", "room: ", "for files in /var/lib/odoo/filestore")
        assert lab_host.address in message
        self.require_old(lab_host)
