"""A database alone: one plain `.sql` in a folder, from an inventory or from variables; and what listings tell of it."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from opsproof.archive.manifest import read_sidecar
from tests.lab.action_run import REPOSITORY, Project, make_project
from tests.lab.application import AWKWARD, table_contents
from tests.lab.postgres_server import WHEEL, PostgresServer

# What does not depend on the server is tried on one.
ON_ONE_SERVER = pytest.mark.parametrize("postgres", [WHEEL], indirect=True)
PASSWORD = AWKWARD + secrets.token_hex(4)
ROLE = "Role: o/p@s"


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> Iterator[str]:
    """A small database with a role of its own."""
    name = f"App {secrets.token_hex(4)}%"
    with postgres.connect() as connection:
        quoted = PASSWORD.replace("'", "''")
        connection.execute(f"CREATE ROLE \"{ROLE}\" LOGIN PASSWORD '{quoted}'".encode())
    postgres.create_database(name, "CREATE TABLE rows AS SELECT n, repeat('x', n) AS t FROM generate_series(1, 300) n")
    with postgres.connect(name) as connection:
        connection.execute(f'ALTER TABLE rows OWNER TO "{ROLE}"'.encode())
    yield name
    postgres.drop_database(name)
    with postgres.connect() as connection:
        connection.execute(f'DROP ROLE "{ROLE}"'.encode())


@pytest.fixture
def project(tmp_path: Path, postgres: PostgresServer) -> Project:
    # The variables of a target without an inventory leave it to PATH where the client programs are.
    project = make_project(tmp_path / "project")
    project.environ["PATH"] = f"{postgres.bindir}:{project.environ['PATH']}"
    return project


def variables(postgres: PostgresServer, database: str, how: str) -> dict[str, str]:
    if how == "PG*":
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(postgres.port),
            "PGUSER": ROLE,
            "PGPASSWORD": PASSWORD,
            "PGDATABASE": database,
        }
    login = f"{quote(ROLE, safe='')}:{quote(PASSWORD, safe='')}"
    return {"DATABASE_URL": f"postgresql://{login}@127.0.0.1:{postgres.port}/{quote(database)}"}


@pytest.mark.parametrize("how", ["DATABASE_URL", "PG*"])
def test_variables_alone_make_a_backup_that_psql_restores(
    project: Project, postgres: PostgresServer, database: str, how: str
) -> None:
    run = project.run(env="staging", inventory=False, environ=variables(postgres, database, how))
    assert run.status == 0, run.output
    assert PASSWORD not in run.output + run.xml + run.log
    (plain,) = (project.folder / "backups").glob("*.sql")
    assert re.fullmatch(r"backup_staging_\d{8}_\d{6}\.sql", plain.name)
    (sidecar,) = (project.folder / "backups").glob("*.manifest.json")
    record = read_sidecar(sidecar.read_bytes(), sidecar.name)
    assert (record.bytes, record.sha256) == (plain.stat().st_size, hashlib.sha256(plain.read_bytes()).hexdigest())
    assert [(one.table, one.rows) for one in record.tables] == [("public.rows", 300)]
    assert record.manifest.filestore is None
    assert "-- PostgreSQL database dump complete" in plain.read_text().splitlines()[-6:]
    copy = f"copy_{secrets.token_hex(4)}"
    postgres.create_database(copy)
    try:
        argv = [str(postgres.bindir / "psql"), "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", str(plain)]
        argv += ["-d", postgres.address(copy).conninfo()]
        environ = {"PGPASSWORD": postgres.password}
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        with postgres.connect(copy) as copied, postgres.connect(database) as original:
            assert table_contents(copied) == table_contents(original)
    finally:
        postgres.drop_database(copy)


@ON_ONE_SERVER
def test_two_sources_that_name_different_databases_are_an_error(
    project: Project, postgres: PostgresServer, database: str
) -> None:
    both = variables(postgres, database, "DATABASE_URL") | variables(postgres, "another", "PG*")
    run = project.run(inventory=False, environ=both)
    assert run.status == 4, run.output
    assert "name different databases" in run.output
    assert PASSWORD not in run.output


@pytest.fixture
def inventory(project: Project, postgres: PostgresServer, database: str) -> Project:
    """The project with an inventory of the one target app."""
    url = variables(postgres, database, "DATABASE_URL")["DATABASE_URL"]
    own = {"database_url": url, "backup_dir": str(project.store), "pg_bindir": str(postgres.bindir)}
    project.write_inventory({"prod": {"app": own}, "staging": {"trial": own}})
    return project


@ON_ONE_SERVER
def test_a_stray_pg_variable_does_not_lead_an_inventorys_target_elsewhere(
    inventory: Project, postgres: PostgresServer
) -> None:
    stray = {
        "PGHOST": "192.0.2.1",
        "PGPORT": "1",
        "PGUSER": "nobody",
        "PGPASSWORD": "wrong-password",
        "PGOPTIONS": "-c x",
    }
    run = inventory.run(environ=stray)
    assert run.status == 0, run.output


@ON_ONE_SERVER
def test_a_second_backup_in_the_same_second_gets_another_name(inventory: Project) -> None:
    """The clock's second is taken from the snapshot, so the first backup's name is what a second one would get."""
    (inventory.folder / "still.py").write_text(
        "import datetime\n"
        "from opsproof.archive import manifest\n"
        "stamp = datetime.datetime(2026, 1, 31, 2, 0, tzinfo=datetime.timezone.utc)\n"
        "plain = manifest.plain_backup_id\n"
        "manifest.plain_backup_id = lambda environment, taken: plain(environment, stamp)\n"
    )
    runs = [inventory.run("-p", "still") for _ in range(2)]
    assert [run.status for run in runs] == [0, 0], runs[-1].output
    assert inventory.stored() == [
        "backup_prod_20260131_020000.manifest.json",
        "backup_prod_20260131_020000.sql",
        "backup_prod_20260131_020000_2.manifest.json",
        "backup_prod_20260131_020000_2.sql",
    ]
    listed = json.loads(inventory.run("--list-backups", "--json").output)
    assert sorted(one["id"] for one in listed[0]["backups"]) == [
        "backup_prod_20260131_020000",
        "backup_prod_20260131_020000_2",
    ]


@ON_ONE_SERVER
def test_listings_tell_what_there_is_for_people_and_for_programs(inventory: Project) -> None:
    assert inventory.run("--list-backups").output.splitlines()[-1].strip() == "no backup here yet"
    done = inventory.run()
    assert done.status == 0, done.output
    unverified = inventory.store / "backup_prod_20200101_000000.sql"
    unverified.write_text("an attempt that was never verified")
    listing = inventory.run("--list-backups")
    backup = done.cases[-1].properties["backup_id"]
    (line,) = [line for line in listing.output.splitlines() if line.strip().startswith(backup)]
    assert line.split()[5:] == ["yes", "prod", "scheduled", "app"]
    (line,) = [line for line in listing.output.splitlines() if "20200101" in line]
    assert "NO: no manifest: never verified" in line
    assert (listing.status, listing.xml) == (0, "")
    (one,) = json.loads(inventory.run("--list-backups", "--json").output)
    found = {each["id"]: each for each in one["backups"]}
    assert found[backup]["verified"] is True
    assert found[backup]["sha256"] == done.cases[-1].properties["backup_sha256"]
    assert found["backup_prod_20200101_000000"]["verified"] is False


@ON_ONE_SERVER
def test_the_targets_and_the_other_environments_are_listed(inventory: Project, database: str) -> None:
    listing = inventory.run("--list-targets")
    assert listing.status == 0, listing.output
    assert f"environment prod from {inventory.inventory}" in listing.output
    assert database in listing.output
    assert "staging: trial" in listing.output
    told = json.loads(inventory.run("--list-targets", "--json").output)
    assert [one["target"] for one in told["targets"]] == ["app"]
    assert told["targets"][0]["database"] == database
    assert told["environments"]["staging"] == ["trial"]
    wrong = inventory.run("--list-targets", env="prid")
    assert wrong.status == 4
    assert "--env=prod" in wrong.output


@ON_ONE_SERVER
def test_a_second_run_on_the_same_database_is_refused_while_the_first_is_at_work(
    inventory: Project, tmp_path: Path, postgres: PostgresServer
) -> None:
    environ = {"PYTHONPATH": str(REPOSITORY), "PAUSE_AFTER": "test_take_lock", "PAUSE_FOLDER": str(inventory.folder)}
    other = make_project(tmp_path / "other")
    other.inventory.write_text(inventory.inventory.read_text())
    with inventory.begin("-p", "tests.lab.pause", environ=environ) as first:
        first.wait_until((inventory.folder / "reached").exists)
        second = other.run()
        (inventory.folder / "go").touch()
        done = first.finish()
    assert done.status == 0, done.output
    assert second.status == 1, second.output
    assert second.failed_step().step == "test_take_lock"
    assert "Another run of opsproof is at work on database" in second.failed_step().message
    assert "wait for the other run" in second.failed_step().message
    assert len(inventory.stored()) == 2


@ON_ONE_SERVER
def test_two_targets_can_be_backed_up_at_once(inventory: Project, postgres: PostgresServer, tmp_path: Path) -> None:
    name = f"second_{secrets.token_hex(4)}"
    postgres.create_database(name, "CREATE TABLE rows AS SELECT generate_series(1, 10) AS n")
    own = {"database_url": postgres.url(name), "pg_bindir": str(postgres.bindir)}
    other = make_project(tmp_path / "other")
    other.write_inventory({"prod": {"second": {**own, "backup_dir": str(other.store)}}})
    try:
        with ThreadPoolExecutor() as pool:
            runs = [future.result() for future in [pool.submit(inventory.run), pool.submit(other.run)]]
    finally:
        postgres.drop_database(name)
    assert [run.status for run in runs] == [0, 0], runs[0].output + runs[1].output
    assert (len(inventory.stored()), len(other.stored())) == (2, 2)
