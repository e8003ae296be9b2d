"""Backups of a real remote Odoo: systemd, PostgreSQL behind its socket, odoo.conf as Debian has it."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Iterator
from zipfile import ZipFile

import pytest

from tests.lab.action_run import ActionRun, Project, require_failure
from tests.lab.debian_host import DebianHost
from tests.lab.odoo_host import ENVIRONMENT, FILESTORE, LOGINS, project_of, variables_of
from tests.lab.postgres_server import PostgresServer
from tests.lab.waiting import await_true

pytest_plugins = ["tests.lab.lab_hosts"]
pytestmark = pytest.mark.lab
PROCESSES = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' || true"
BIG = "CREATE TABLE public.big AS SELECT n, repeat(md5(n::text), 40) t FROM generate_series(1, 400000) n"
DUMPING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY public.big %'"
PASSWORD = "p@ss/w+rd&k=ey"
SECRET = "wJalr/XUtnF+EMI K7MDENG"


@pytest.fixture(params=LOGINS)
def project(lab_host: DebianHost, request: pytest.FixtureRequest) -> Iterator[Project]:
    with project_of(lab_host, request.param) as made:
        yield made


def back_up(project: Project, **how: object) -> ActionRun:
    return project.run(env=ENVIRONMENT, **how)


def left_of_a_run(host: DebianHost) -> list[str]:
    """Return what runs of ours have left on the host: processes, and frozen folders."""
    marked = host.inside("grep -lz ^OPSPROOF_RUN= /proc/[0-9]*/environ 2>/dev/null || true").split()
    frozen = host.inside("find /var/lib/odoo /tmp -name '*opsproof*' 2>/dev/null || true").split()
    return marked + frozen


def sessions_of(host: DebianHost) -> str:
    return host.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'opsproof%'")


def test_a_backup_has_every_row_and_every_attachment(project: Project, lab_host: DebianHost) -> None:
    names = set(lab_host.sql("SELECT DISTINCT store_fname FROM ir_attachment WHERE store_fname IS NOT NULL").split())
    users = lab_host.sql("SELECT count(*) FROM res_users")
    run = back_up(project)
    assert run.status == 0, run.output
    (stored,) = [one for one in project.stored() if one.endswith(".zip")]
    with ZipFile(project.store / stored) as bundle:
        assert bundle.testzip() is None
        members = bundle.namelist()
        text = bundle.read(next(one for one in members if one.endswith(".sql"))).decode()
    assert names
    assert {one.partition("filestore/")[2] for one in members if "filestore/" in one} >= names
    assert len(text.partition("COPY public.res_users (")[2].partition("\n\\.")[0].splitlines()) - 1 == int(users)
    await_true(lambda: left_of_a_run(lab_host) == [], f"left: {left_of_a_run(lab_host)}", 10)
    assert project.litter() == []


def seconds_of(project: Project) -> float:
    """Return how long the fastest of three backups takes, as a whole command."""
    found = []
    for _ in range(3):
        began = time.monotonic()
        run = back_up(project)
        found.append(time.monotonic() - began)
        assert run.status == 0, run.output
    return min(found)


def test_an_empty_database_takes_at_most_three_seconds_more_than_here(
    lab_host: DebianHost, wheel_postgres: PostgresServer
) -> None:
    lab_host.inside("cd /; runuser -u postgres -- createdb -O odoo -T template0 empty")
    wheel_postgres.create_database("empty")
    near = {"ansible_connection": "local", "database_url": wheel_postgres.url("empty"), "filestore": "none"}
    far = variables_of(lab_host, database_url="postgresql://odoo@/empty", filestore="none")
    del far["odoo_conf"], far["dbname"]
    try:
        with project_of(lab_host) as there, project_of(lab_host) as here:
            there.write_inventory({ENVIRONMENT: {"erp": far}})
            here.write_inventory(
                {ENVIRONMENT: {"erp": {**near, "pg_bindir": str(wheel_postgres.bindir), "backup_dir": "store"}}}
            )
            assert seconds_of(there) - seconds_of(here) <= 3.0
    finally:
        wheel_postgres.drop_database("empty")
        lab_host.inside("cd /; runuser -u postgres -- dropdb empty")


def test_no_credential_of_the_store_reaches_the_host(project: Project, lab_host: DebianHost) -> None:
    seen: set[str] = set()
    with project.begin(env=ENVIRONMENT, environ={"AWS_SECRET_ACCESS_KEY": SECRET, "S3_TOKEN": SECRET}) as begun:
        while begun.process.poll() is None:
            seen.add(
                lab_host.inside("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' || true")
            )
        run = begun.finish()
    assert run.status == 0, run.output
    assert any("pg_dump" in one for one in seen)
    disk = lab_host.inside("journalctl --no-pager; cat ~root/.*history ~ops/.*history 2>/dev/null || true")
    for text in (SECRET, urllib.parse.quote(SECRET), urllib.parse.quote_plus(SECRET)):
        assert not any(text in one for one in seen)
        assert text not in disk
        assert lab_host.inside(f"grep -rlF '{text}' /tmp /var/tmp /var/log ~root /home /run 2>/dev/null || true") == ""


def test_no_password_of_the_database_reaches_a_process_list_or_a_disk(fresh_lab_host: DebianHost) -> None:
    """It stands in odoo.conf alone, as before."""
    host = fresh_lab_host
    # By stdin: the journal keeps the command line of whoever opens a session.
    host.inside(f"cd /; runuser -u postgres -- psql -q prod <<'END'\nALTER ROLE odoo PASSWORD '{PASSWORD}'\nEND")
    host.inside(
        f"printf 'db_host = localhost\\ndb_password = %s\\n' '{PASSWORD.replace('%', '%%')}' >>/etc/odoo/odoo.conf"
    )
    seen: set[str] = set()
    with project_of(host, "ops") as project, project.begin(env=ENVIRONMENT) as begun:
        while begun.process.poll() is None:
            seen.add(host.inside("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' || true"))
        run = begun.finish()
    assert run.status == 0, run.output
    assert any("pg_dump" in one for one in seen)
    places = "/tmp /var/tmp /var/log ~root /home /run /var/lib/odoo"
    for text in (PASSWORD, urllib.parse.quote(PASSWORD), urllib.parse.quote_plus(PASSWORD)):
        assert not any(text in one for one in seen)
        assert text not in run.output + run.log + run.xml
        assert text not in host.inside("journalctl --no-pager")
        assert host.inside(f"grep -rlF '{text}' {places} 2>/dev/null || true") == ""


class TestFaults:
    @pytest.fixture
    def own(self, fresh_lab_host: DebianHost) -> Iterator[Project]:
        with project_of(fresh_lab_host, "ops") as made:
            yield made

    def test_the_network_is_cut_during_the_dump(self, own: Project, fresh_lab_host: DebianHost) -> None:
        """The host ends what is left there by itself, so that no snapshot and no lock stays."""
        fresh_lab_host.sql(BIG + "; ALTER TABLE public.big OWNER TO odoo")
        with own.begin(env=ENVIRONMENT) as begun:
            begun.wait_until(lambda: fresh_lab_host.sql(DUMPING) != "0")
            fresh_lab_host.cut()
            cut = time.monotonic()
            await_true(lambda: sessions_of(fresh_lab_host) == "0", "its sessions stay on the server", 60)
            ended = time.monotonic() - cut
            run = begun.finish(180)
        assert ended < 45, ended
        assert run.status == 1, run.output
        assert "cannot be reached by ssh" in run.output
        assert own.stored() == []
        fresh_lab_host.join()
        again = back_up(own)
        assert again.status == 0, again.output
        assert left_of_a_run(fresh_lab_host) == []

    def test_the_network_is_cut_during_the_upload(self, own: Project, fresh_lab_host: DebianHost) -> None:
        """The files are on their way into the bundle, which is then no backup."""
        folder = f"{FILESTORE}/zz"
        fresh_lab_host.inside(
            f"mkdir {folder}; head -c 400M /dev/urandom | split -b 4M - {folder}/; chown -R odoo: {folder}"
        )
        with own.begin(env=ENVIRONMENT) as begun:
            begun.wait_until(lambda: any(path.stat().st_size > 20_000_000 for path in own.store.rglob("*.part-*")), 60)
            fresh_lab_host.cut()
            run = begun.finish(180)
        assert run.status == 1, run.output
        assert "cannot be reached by ssh" in run.output
        assert own.stored() == []
        await_true(lambda: sessions_of(fresh_lab_host) == "0", "its sessions stay on the server", 60)
        fresh_lab_host.join()
        again = back_up(own)
        assert again.status == 0, again.output
        assert left_of_a_run(fresh_lab_host) == []

    def test_sudo_is_refused(self, own: Project, fresh_lab_host: DebianHost) -> None:
        fresh_lab_host.inside("rm /etc/sudoers.d/ops")
        run = back_up(own)
        assert run.status != 0
        assert "does not let ops be root" in run.output
        assert "visudo" in run.output

    def test_a_host_without_pg_dump(self, own: Project, fresh_lab_host: DebianHost) -> None:
        fresh_lab_host.inside("rm -r /usr/lib/postgresql/13/bin/pg_dump /usr/bin/pg_dump")
        run = back_up(own)
        require_failure(run, "test_client_programs_fit", "pg_dump not found for PostgreSQL 13")
        assert "apt-get install postgresql-client-13" in run.output

    def test_a_wrong_host_key(self, own: Project, fresh_lab_host: DebianHost) -> None:
        fresh_lab_host.inside("rm /etc/ssh/ssh_host_*; ssh-keygen -A >/dev/null; systemctl restart ssh")
        run = back_up(own)
        assert run.status != 0
        assert "is not known by its host key" in run.output
        assert own.stored() == []
