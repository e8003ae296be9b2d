"""The demo, for real: what it starts, what is in it, how it comes back and how it goes."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from opsproof.demo import bucket, cluster
from opsproof.demo.application.sample import ATTACHMENTS, CONTACTS, MESSAGES, ORDERS
from opsproof.demo.processes import DemoProcess, find_processes
from opsproof.demo.releases import write_release
from opsproof.demo.supervision import PROGRAMS, Supervisor
from opsproof.inventory.loading import load_environment
from opsproof.target import S3StoreSettings
from tests.lab.demo_environment import Demo, demo_folder
from tests.lab.waiting import await_true

pytest_plugins = ["tests.lab.demo_environment"]


def test_the_inventory_is_a_plain_one_that_the_engine_loads(demo: Demo) -> None:
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    (shop,) = load_environment("demo", inventory=demo.inventory, environ=environ).targets
    assert (shop.name, shop.database.name, shop.database.user) == ("shop", "demo", "odoo")
    assert shop.database.password is not None
    assert shop.database.password.reveal() == demo.state.application_password
    assert shop.filestore is not None
    assert Path(shop.filestore.path) == demo.folder.data_dir / "filestore" / "demo"
    assert shop.filestore.content_addressed
    assert set(shop.services) < set(PROGRAMS)
    assert isinstance(shop.store, S3StoreSettings)
    assert (shop.store.bucket, shop.store.endpoint_url) == ("opsproof-demo", demo.state.endpoint_url)
    assert shop.pg_bindir is not None
    for program in ("pg_dump", "pg_restore", "psql"):
        told = subprocess.run([f"{shop.pg_bindir}/{program}", "--version"], capture_output=True, timeout=20)
        assert b"18." in told.stdout


def test_the_bucket_takes_and_gives_with_the_profiles_credentials(demo: Demo) -> None:
    import boto3  # here, for it takes a third of a second to import

    # boto3's session takes the file's path from this variable alone, and reads it when it is made.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(demo.folder.credentials))
        session = boto3.Session(profile_name="demo")
        client = session.client("s3", endpoint_url=demo.state.endpoint_url)
        client.put_object(Bucket=bucket.BUCKET, Key="test/probe", Body=b"kept")
        assert client.get_object(Bucket=bucket.BUCKET, Key="test/probe")["Body"].read() == b"kept"
        client.delete_object(Bucket=bucket.BUCKET, Key="test/probe")
        found = session.get_credentials()
        assert found is not None
        assert found.access_key == demo.state.access_key


def test_a_second_start_finds_the_same_processes_at_once(demo: Demo) -> None:
    before = _main_processes(demo)
    began = time.monotonic()
    assert str(demo.inventory) in demo.must("start")
    # Half a second for a person; a loaded machine with two cores gets more.
    assert time.monotonic() - began < 3
    assert _main_processes(demo) == before
    assert sorted(one.program for one in before) == [
        "moto.server",
        "opsproof.demo.writer",
        "postgres",
        "shop.server",
        "supervisor.supervisord",
    ]


def test_status_says_that_all_four_answer(demo: Demo) -> None:
    output = demo.must("status")
    for program in PROGRAMS:
        assert any(line.startswith(program) and "answers" in line for line in output.splitlines()), output


def test_all_four_start_with_supervisor(demo: Demo) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(demo.folder.supervisor_conf), "avail"],
        capture_output=True, text=True, timeout=30,
    ).stdout  # fmt: skip
    assert [line.split()[:4] for line in sorted(told.splitlines())] == [
        [name, "in", "use", "auto"] for name in sorted(PROGRAMS)
    ]


def test_the_seed_is_whole_and_every_row_has_its_file(demo: Demo) -> None:
    filestore = demo.folder.data_dir / "filestore" / "demo"
    with _as_application(demo) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM res_partner), (SELECT count(*) FROM sale_order), (SELECT count(*) FROM "
            "mail_message WHERE message_type <> 'notification'), (SELECT count(*) FROM ir_attachment WHERE res_model "
            "= 'sale.order')"
        ).fetchone()
        assert counts == (CONTACTS, ORDERS, MESSAGES, ATTACHMENTS)
        rows = connection.execute("SELECT store_fname, checksum, file_size FROM ir_attachment").fetchall()
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
    for stored, checksum, size in rows:
        content = (filestore / stored).read_bytes()
        assert (hashlib.sha1(content).hexdigest(), len(content)) == (checksum, size)
        assert stored == f"{checksum[:2]}/{checksum}"
    on_disk = {str(path.relative_to(filestore)) for path in filestore.glob("??/*")}
    # The clean-up's markers and files that no row names, as in a real one.
    assert len(on_disk - {row[0] for row in _attachments(demo)}) >= 2
    assert any((filestore / "checklist").glob("??/*"))


def test_the_database_keeps_moving(demo: Demo) -> None:
    first = _get(demo, "/counts")
    wanted = first["notifications"] + 5
    await_true(lambda: _get(demo, "/counts")["notifications"] >= wanted, "the writer does not write", 20)
    await_true(lambda: _get(demo, "/counts")["notes"] > first["notes"], "the writer does not note", 20)


def test_an_attachment_is_stored_by_its_sha1_and_read_back(demo: Demo) -> None:
    content = os.urandom(70_000)
    status, told = _request(demo, "POST", "/attachments?name=photo.bin", content, {"Content-Type": "image/x-test"})
    assert status == 201
    answer = json.loads(told)
    digest = hashlib.sha1(content).hexdigest()
    assert answer["store_fname"] == f"{digest[:2]}/{digest}"
    assert (demo.folder.data_dir / "filestore" / "demo" / answer["store_fname"]).read_bytes() == content
    assert _request(demo, "GET", f"/attachments/{answer['id']}", b"") == (200, content)


def test_the_page_shows_messages_as_text(demo: Demo) -> None:
    status, _ = _request(demo, "POST", "/messages", json.dumps({"subject": "<b>5 & 6</b>", "body": ""}).encode())
    assert status == 201
    status, page = _request(demo, "GET", "/", b"")
    assert status == 200
    assert b"&lt;b&gt;5 &amp; 6&lt;/b&gt;" in page


def test_pruning_leaves_the_latest_notifications_and_every_other_message(demo: Demo) -> None:
    await_true(lambda: _get(demo, "/counts")["notifications"] > 5, "the writer does not write", 20)
    before = _get(demo, "/counts")
    status, _ = _request(demo, "POST", "/messages/prune", b'{"keep": 3}')
    after = _get(demo, "/counts")
    assert status == 200
    assert 3 <= after["notifications"] < before["notifications"]
    assert after["messages"] - after["notifications"] == before["messages"] - before["notifications"] == MESSAGES


def test_what_holds_a_password_is_private_and_no_argument_holds_one(demo: Demo) -> None:
    state = demo.state
    planted = [state.superuser_password, state.application_password, state.secret_key]
    holders = set()
    for path in demo.folder.path.rglob("*"):
        if not path.is_file() or demo.folder.data in path.parents or "pginstall" in path.parts:
            continue
        text = path.read_text(errors="replace")
        if any(secret in text for secret in planted):
            holders.add(path.name)
            assert path.stat().st_mode & 0o777 == 0o600
    assert holders == {"state.json", "odoo.conf", "aws-credentials"}
    for process in find_processes(demo.folder):
        for name in ("cmdline", "environ"):
            try:
                seen = Path(f"/proc/{process.pid}/{name}").read_text(errors="replace")
            except FileNotFoundError:
                continue  # a session of PostgreSQL's that ended
            assert not any(secret in seen for secret in planted)
    assert demo.folder.deploy.stat().st_mode & 0o777 == 0o700
    assert state.supervisor_socket.parent.stat().st_mode & 0o777 == 0o700


def test_the_callers_secrets_do_not_live_on_in_the_demo(demo: Demo) -> None:
    """A daemon outlives the CI job that started it: it inherits none of the job's variables."""
    for process in _main_processes(demo):
        names = {
            variable.partition("=")[0]
            for variable in Path(f"/proc/{process.pid}/environ").read_text(errors="replace").split("\0")
        }
        assert "OPSPROOF_DEMO_DIR" not in names
        assert "PATH" in names or process.program == "postgres"


def test_a_program_that_was_stopped_is_started_again(demo: Demo) -> None:
    supervisor = Supervisor(demo.state)
    supervisor.stop("writer")
    status, output = demo.run("status")
    assert status == 3
    assert "STOPPED" in output
    before = _main_processes(demo)
    demo.must("start")
    assert (supervisor.states() or {})["writer"] == "RUNNING"
    assert set(before) < set(_main_processes(demo))


def test_a_lost_bucket_is_made_again(demo: Demo) -> None:
    """The S3 server keeps its objects in memory: killed, it comes back empty."""
    (server,) = [one for one in _main_processes(demo) if one.program == "moto.server"]
    os.kill(server.pid, signal.SIGKILL)
    output = demo.must("start")
    assert bucket.make_bucket(demo.state) is False
    assert "made the bucket" in output


def test_a_release_that_is_not_well_keeps_nobody_from_the_rest_of_the_demo(demo: Demo) -> None:
    """What goes back from it is run by pytest, which starts the demo first."""
    live, supervisor = demo.folder.current.readlink(), Supervisor(demo.state)
    broken = demo.folder.releases / "29990101000000"
    write_release("1.2", broken)
    try:
        _let_current_lead_to(demo, Path("releases") / broken.name)
        supervisor.stop("application")
        output = demo.must("start")
        assert "the application is not well" in output
        assert "test_rollback.py --type=release" in output
        assert _request(demo, "GET", "/health", b"")[0] == 503
    finally:
        _let_current_lead_to(demo, live)
        supervisor.stop("application")
        demo.must("start")
        shutil.rmtree(broken)
    assert _get(demo, "/health") == {"status": "pass", "database": "demo", "version": "1.0"}


def test_the_history_goes_down_and_up_again_with_the_same_totals(demo: Demo, tmp_path: Path) -> None:
    name = f"history {os.getpid()}"
    conf = tmp_path / "odoo.conf"
    conf.write_text(demo.folder.odoo_conf.read_text().replace("db_name = demo", f"db_name = {name}"))
    ini = tmp_path / "alembic.ini"
    text = demo.folder.alembic_ini.read_text().replace("%(here)s/odoo.conf", str(conf))
    ini.write_text(text.replace("%(here)s", str(demo.folder.current)))
    with _as_application(demo) as outside:
        outside.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            _alembic(ini, "upgrade", "a7d43e1f9058")
            with _as_application(demo, name) as connection:
                connection.execute("INSERT INTO res_partner (id, name) VALUES (1, 'Anna')")
                connection.execute(
                    "INSERT INTO sale_order (id, name, partner_id, date_order) VALUES (1, 'S1', 1, now())"
                )
                connection.execute(
                    "INSERT INTO sale_order (id, name, partner_id, date_order) VALUES (2, 'S2', 1, now())"
                )
                connection.execute(
                    "INSERT INTO sale_order_line (order_id, name, quantity, price_unit) VALUES (1, 'Desk', 2, 10.55), "
                    "(1, 'Lamp', 1, 0.99)"
                )
            for step in ("+2", "head"):
                _alembic(ini, "upgrade", step)
                with _as_application(demo, name) as connection:
                    totals = connection.execute("SELECT id, amount_total::text FROM sale_order ORDER BY id").fetchall()
                assert totals == [(1, "22.09"), (2, "0.00")]
                if step == "+2":
                    _alembic(ini, "downgrade", "a7d43e1f9058")
            _alembic(ini, "downgrade", "base")
            with _as_application(demo, name) as connection:
                left = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
                assert {row[0] for row in left} == {"alembic_version", "alembic_version_pkc"}
        finally:
            outside.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_first_run_cut_short_is_taken_up_once_by_two_at_a_time_and_survives_a_killed_supervisor() -> None:
    """In a folder too deep for a socket, too; at the end nothing is left of it, in /tmp neither.

    In between it is taken for one of an earlier opsproof, whose application ran from no release.
    """
    with demo_folder("opsproof-test-" + "deep" * 25) as deep:
        cut = deep.begin("start")
        await_true((deep.folder.server / "data.part").exists, "no data folder is begun", 20)
        cut.kill()
        cut.communicate()
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(deep.run, ["start", "start"]))
        assert [status for status, _ in results] == [0, 0], results
        assert sum("starting postgres" in output for _, output in results) == 1
        assert _get(deep, "/counts")["contacts"] == CONTACTS
        sockets = Path(deep.state.sockets)
        assert deep.folder.path not in sockets.parents

        before = _main_processes(deep)
        (supervisor,) = [one for one in before if one.program == "supervisor.supervisord"]
        with _as_application(deep) as connection:
            connection.execute("INSERT INTO ir_config_parameter (key, value) VALUES ('test.kept', 'yes')")
        os.kill(supervisor.pid, signal.SIGKILL)
        await_true(lambda: supervisor not in find_processes(deep.folder), "the supervisor does not end", 20)
        status, output = deep.run("status")
        assert status == 3
        assert "ORPHANED" in output

        deep.must("start")
        after = _main_processes(deep)
        assert not set(before) & set(after)
        assert len(after) == len(before)
        with _as_application(deep) as connection:
            kept = connection.execute("SELECT value FROM ir_config_parameter WHERE key = 'test.kept'").fetchone()
        assert kept == ("yes",)

        conf = deep.folder.supervisor_conf
        conf.write_text(conf.read_text().replace(str(deep.folder.current), str(deep.folder.path)))
        assert "stopping the demo" in deep.must("start")
        assert str(deep.folder.current) in conf.read_text()
        assert not set(after) & set(_main_processes(deep))
        assert "stopping the demo" not in deep.must("start")

        assert "the demo is stopped" in deep.must("stop")
        assert find_processes(deep.folder) == []
        assert "the demo was not running" in deep.must("stop")
        assert "the demo is wiped" in deep.must("reset")
        assert not deep.folder.path.exists()
        assert not sockets.exists()


def _let_current_lead_to(demo: Demo, place: Path) -> None:
    link = demo.folder.deploy / "link"
    link.symlink_to(place)
    link.replace(demo.folder.current)


def _main_processes(demo: Demo) -> list[DemoProcess]:
    """Return the demo's processes without PostgreSQL's own children, which come and go."""
    found = [one for one in find_processes(demo.folder) if one.program != "postgres backend"]
    return sorted(found, key=lambda one: one.pid)


def _as_application(demo: Demo, database: str = cluster.DATABASE) -> psycopg.Connection[Any]:
    return cluster.connect(demo.state, database)


def _attachments(demo: Demo) -> list[Any]:
    with _as_application(demo) as connection:
        return connection.execute("SELECT store_fname FROM ir_attachment").fetchall()


def _get(demo: Demo, path: str) -> Any:
    status, told = _request(demo, "GET", path, b"")
    assert status == 200, told
    return json.loads(told)


def _request(
    demo: Demo, method: str, path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", demo.state.application_port, timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _alembic(ini: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ini), *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
