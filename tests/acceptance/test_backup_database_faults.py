"""When the database or its client programs fail: no backup, an error that says what to do, and nothing left."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from psycopg import sql

from tests.lab import client_programs
from tests.lab.action_run import REPOSITORY, ActionRun, Project, require_failure
from tests.lab.application import Application, file_contents, running_application
from tests.lab.backup_runs import describe
from tests.lab.client_programs import wrap_clients
from tests.lab.postgres_server import PostgresServer


def require_told_failure(run: ActionRun, step: str, *words: str) -> str:
    """Check that a step failed with an error that says these words, on the terminal and in the XML; return it."""
    message = require_failure(run, step, *words)
    for word in words:
        assert word in run.output
    later = [each for each in run.cases if each.outcome == "skipped"]
    assert all(f"step {step} did not pass" in each.message for each in later)
    passed = [each.outcome for each in run.cases].count("passed")
    assert passed + len(later) + 1 == len(run.cases) == 14
    return message


def require_nothing_left(project: Project, application: Application, files: dict[str, str]) -> None:
    """Check that neither store nor disk nor server have anything of the run."""
    assert project.stored() == []
    assert project.litter() == []
    assert not application.frozen.exists()
    assert file_contents(application.filestore) == files
    application.require_no_session()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param(client_programs.KILLED_MIDWAY, ["pg_dump was killed by signal 9"], id="killed midway"),
        pytest.param(
            client_programs.FAILS_AFTER_A_WHOLE_DUMP, ["exit status 1", "quota exceeded"], id="exit 1 after a dump"
        ),
        pytest.param(client_programs.ENDS_WELL_HALFWAY, ["pg_restore"], id="exit 0 after half a dump"),
    ],
)
def test_a_pg_dump_that_fails_leaves_no_backup(
    project: Project, application: Application, script: str, words: list[str]
) -> None:
    files = dict(file_contents(application.filestore))
    describe(project, application, wrap_clients(project.folder / "bin", application.server.bindir, pg_dump=script))
    run = project.run()
    require_told_failure(run, "test_dump_database", *words, "no backup was written")
    require_nothing_left(project, application, files)


@pytest.mark.parametrize("whose", ["pg_dump's", "everybody's"])
def test_a_connection_that_is_cut_leaves_no_backup(project: Project, application: Application, whose: str) -> None:
    files = dict(file_contents(application.filestore))
    bindir = wrap_clients(project.folder / "bin", application.server.bindir, pg_dump=client_programs.WAITS_MIDWAY)
    describe(project, application, bindir)
    query = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    )
    if whose == "pg_dump's":
        query += " AND query LIKE 'COPY public.aaa %%'"
    with application.connect() as connection:
        # More than the sockets' buffers hold, so that the server is still sending when it is cut.
        connection.execute("CREATE TABLE aaa AS SELECT repeat(md5(i::text), 60) AS a FROM generate_series(1, 9000) i")
        connection.execute(sql.SQL("ALTER TABLE aaa OWNER TO {}").format(sql.Identifier(application.role)))
        try:
            with project.begin() as begun:
                begun.wait_until((bindir / "reached").exists)
                assert connection.execute(query, (application.name,)).fetchall()
                (bindir / "go").touch()
                run = begun.finish()
        finally:
            connection.execute("DROP TABLE aaa")
    require_told_failure(run, "test_dump_database", "connection", "hint:")
    require_nothing_left(project, application, files)


def test_a_role_that_may_not_read_a_table_is_told_which(project: Project, application: Application) -> None:
    files = dict(file_contents(application.filestore))
    with application.connect() as connection:
        connection.execute("CREATE TABLE salaries (amount int)")
        try:
            describe(project, application)
            run = project.run()
        finally:
            connection.execute("DROP TABLE salaries")
    message = require_failure(run, "test_dump_database", "PermissionDenied", "salaries", "GRANT pg_read_all_data")
    assert application.role in message
    require_nothing_left(project, application, files)


def test_a_table_that_somebody_locks_is_waited_for_no_longer_than_lock_timeout(
    project: Project, application: Application
) -> None:
    files = dict(file_contents(application.filestore))
    describe(project, application, lock_timeout=0.4)
    with application.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE res_partner IN ACCESS EXCLUSIVE MODE")
        run = project.run()
    require_told_failure(run, "test_dump_database", "LockTimeout", "pg_stat_activity")
    assert float(run.case("test_dump_database").properties["seconds"]) < 10
    require_nothing_left(project, application, files)


@pytest.mark.parametrize("when", ["between two steps", "during the dump"])
def test_a_database_that_vanishes_leaves_no_backup(
    project: Project, wheel_postgres: PostgresServer, tmp_path: Path, when: str
) -> None:
    with running_application(wheel_postgres, tmp_path, attachments=2) as application:
        files = dict(file_contents(application.filestore))
        bindir = wheel_postgres.bindir
        environ = {"PYTHONPATH": str(REPOSITORY), "PAUSE_FOLDER": str(project.folder), "PAUSE_AFTER": "test_take_lock"}
        waiting = project.folder
        if when == "during the dump":
            environ["PAUSE_AFTER"] = "nothing"
            bindir = wrap_clients(project.folder / "bin", bindir, pg_dump=client_programs.WAITS_MIDWAY)
            waiting = bindir
        describe(project, application, bindir)
        with project.begin("-p", "tests.lab.pause", environ=environ) as begun:
            begun.wait_until((waiting / "reached").exists)
            wheel_postgres.drop_database(application.name)
            (waiting / "go").touch()
            run = begun.finish()
        words = ["does not exist", "dbname in hosts.yml"] if when == "between two steps" else ["connection"]
        require_told_failure(run, "test_dump_database", *words)
        require_nothing_left(project, application, files)


def test_a_database_that_does_not_exist_is_answered_with_the_names_that_do(
    project: Project, application: Application
) -> None:
    conf = project.folder / "odoo.conf"
    conf.write_text(application.odoo_conf.read_text().replace(application.name, application.name + "x"))
    describe(project, application, odoo_conf=str(conf))
    run = project.run()
    message = require_failure(run, "test_database_exists", "DatabaseMissing", "does not exist", "hosts.yml")
    assert f"the nearest is '{application.name}'" in message
    assert project.stored() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param("password", ["ConnectionFailed", "password authentication failed", "db_password"], id="password"),
        pytest.param("port", ["ConnectionFailed", "refused", "is the server running"], id="port"),
        pytest.param("role", ["ConnectionFailed", "nobody_like_this"], id="role"),
    ],
)
def test_a_login_that_fails_says_what_to_check(
    project: Project, application: Application, change: str, words: list[str]
) -> None:
    text = application.odoo_conf.read_text()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        changes = {
            "password": (application.password, application.password + "x"),
            "port": (str(application.server.port), str(unused.getsockname()[1])),
            "role": (application.role, "nobody_like_this"),
        }
        conf = project.folder / "odoo.conf"
        conf.write_text(text.replace(*changes[change]))
        describe(project, application, odoo_conf=str(conf))
        run = project.run()
    require_told_failure(run, "test_database_exists", *words)
    assert application.password not in run.output + run.xml + run.log
    assert (project.stored(), project.litter()) == ([], [])


def test_client_programs_that_are_not_there_are_named_with_their_package(
    project: Project, application: Application, tmp_path: Path
) -> None:
    describe(project, application, tmp_path)
    run = project.run()
    require_told_failure(run, "test_client_programs_fit", "pg_dump not found", "apt-get install postgresql-client-18")
    assert project.stored() == []


def test_client_programs_of_another_major_are_refused(
    project: Project, application: Application, system_postgres: PostgresServer
) -> None:
    describe(project, application, system_postgres.bindir)
    run = project.run()
    require_told_failure(run, "test_client_programs_fit", f"in {system_postgres.bindir}", "the server's own")
    assert project.stored() == []


def test_tables_with_names_of_sql_or_options_are_only_names(project: Project, application: Application) -> None:
    with application.connect() as connection:
        for name in ("--help", "x'; DROP TABLE res_partner; --"):
            connection.execute(sql.SQL("CREATE TABLE {} AS SELECT 1 AS a").format(sql.Identifier(name)))
            connection.execute(
                sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier(name), sql.Identifier(application.role))
            )
        try:
            describe(project, application)
            run = project.run()
            assert run.status == 0, run.output
            assert connection.execute("SELECT count(*) FROM res_partner").fetchone() == (500,)
        finally:
            for name in ("--help", "x'; DROP TABLE res_partner; --"):
                connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
