"""Services under a real supervisord, and the demo's own."""

from __future__ import annotations

import getpass
import http.client
import json
import os
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from opsproof.demo.supervision import Supervisor as DemoSupervisor
from opsproof.demo.writer import Writer
from opsproof.errors import CommandFailed, CommandTimeout, HostError, ProgramMissing, ProofError
from opsproof.inspection.health import check_health, wait_until_healthy
from opsproof.inventory.loading import load_environment
from opsproof.system.hosts.host import Host
from opsproof.system.services import service
from opsproof.system.services.service import Service, services_of
from opsproof.system.services.supervisor import Supervisor
from opsproof.target import Connection
from tests.lab.demo_environment import running_demo
from tests.lab.supervisord import running_supervisord
from tests.lab.waiting import await_true

HOST = Host(Connection())
PROGRAMS = {
    "steady": {"command": "sleep 600"},
    "idle": {"command": "sleep 600"},
    # Its last words on both channels; 50% is a trap for whoever formats them.
    "broken": {"command": "sh -c 'seq 100; echo é 50%% of it; echo why >&2; exit 3'", "startretries": "0"},
    "retried": {"command": "sh -c 'sleep 0.2; exit 3'", "startretries": "100"},
    "absent": {"command": "/no/such/program"},
    # Without startsecs supervisor takes it for running at once.
    "flapping": {"command": "sh -c 'sleep 0.7'", "startsecs": "0", "autorestart": "true"},
    "brief": {"command": "sh -c 'sleep 0.7'", "startsecs": "0", "autorestart": "false"},
    "stubborn": {"command": "sh -c \"trap '' TERM; while :; do sleep 0.1; done\"", "stopwaitsecs": "2"},
    "pair": {"command": "sleep 600", "numprocs": "2", "process_name": "%(program_name)s_%(process_num)d"},
}


@pytest.fixture(scope="module")
def conf() -> Iterator[Path]:
    """The configuration of a supervisord of this module's own, with none of its programs running."""
    stopped = {"autostart": "false", "killasgroup": "true", "stopasgroup": "true"}
    programs = {name: {**stopped, **options} for name, options in PROGRAMS.items()}
    with (
        tempfile.TemporaryDirectory(prefix="opsproof-test-") as folder,
        running_supervisord(Path(folder), programs) as conf,
    ):
        yield conf


@pytest.fixture
def unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start counts once supervisor says so: for tests of something else."""
    monkeypatch.setattr(service, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def steady(conf: Path) -> Service:
    return Service("steady", Supervisor(HOST, str(conf)))


def failure(one: Service, kind: type[HostError] = HostError) -> HostError:
    with pytest.raises(kind) as caught:
        one.start()
    assert caught.value.hint
    return caught.value


def test_a_program_is_started_and_stopped_and_that_is_seen(steady: Service) -> None:
    assert (steady.is_running(), steady.is_stopped(), steady.owner()) == (False, True, None)

    took = steady.start()

    (pid,) = steady.status().pids
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00600\x00"
    assert 2 <= took < 20
    assert (steady.is_running(), steady.is_stopped(), steady.owner()) == (True, False, getpass.getuser())
    assert steady.describe() == "supervisor: steady"

    steady.start()
    assert steady.status().pids == (pid,)

    steady.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert (steady.is_running(), steady.is_stopped()) == (False, True)
    steady.stop()


def test_what_the_inventory_says_of_the_user_comes_first(conf: Path) -> None:
    assert Service("steady", Supervisor(HOST, str(conf)), user="odoo").owner() == "odoo"


def test_a_program_that_ends_at_once_is_an_error_with_its_last_lines(conf: Path) -> None:
    error = failure(Service("broken", Supervisor(HOST, str(conf))), CommandFailed)
    assert error.summary == "supervisor: broken did not start"
    lines = error.found.splitlines()
    assert lines[:3] == ["FATAL", "broken: ERROR (spawn error)", "its last lines:"]
    assert lines[3:] == [*map(str, range(91, 101)), "é 50% of it", "why"]
    assert f"supervisorctl -c {conf} tail broken" in error.hint


def test_a_program_whose_file_is_not_there_is_an_error(conf: Path) -> None:
    error = failure(Service("absent", Supervisor(HOST, str(conf))), CommandFailed)
    assert "absent: ERROR (no such file)" in error.found


def test_a_program_that_supervisor_keeps_trying_neither_runs_nor_is_down_until_it_is_stopped(conf: Path) -> None:
    retried = Service("retried", Supervisor(HOST, str(conf)))
    error = failure(retried, CommandFailed)
    assert error.found.splitlines()[0] in {"BACKOFF", "STARTING"}
    assert (retried.is_running(), retried.is_stopped()) == (False, False)
    retried.stop()
    assert retried.is_stopped()


def test_a_program_that_is_started_again_and_again_did_not_start(conf: Path) -> None:
    flapping = Service("flapping", Supervisor(HOST, str(conf)))
    assert "it ended right after its start" in failure(flapping, CommandFailed).found
    flapping.stop()
    assert flapping.is_stopped()


def test_a_program_that_ends_right_after_its_start_did_not_start(conf: Path) -> None:
    error = failure(Service("brief", Supervisor(HOST, str(conf))), CommandFailed)
    assert error.found.splitlines()[:2] == ["EXITED", "it ended right after its start"]


@pytest.mark.usefixtures("unsettled")
def test_a_stop_that_takes_too_long_is_an_error_and_a_start_waits_for_its_end(conf: Path) -> None:
    stubborn = Service("stubborn", Supervisor(HOST, str(conf)))
    stubborn.start()
    before = stubborn.status().pids
    with pytest.raises(CommandTimeout, match="supervisor: stubborn did not stop") as caught:
        stubborn.stop(timeout=1)
    assert caught.value.found.splitlines() == ["STOPPING", "its manager gave no answer within 1 s"]
    assert (stubborn.is_running(), stubborn.is_stopped()) == (False, False)

    stubborn.start()

    assert stubborn.is_running()
    assert stubborn.status().pids != before
    assert stubborn.stop(timeout=20) >= 1.5


@pytest.mark.usefixtures("unsettled")
def test_a_group_is_one_service(conf: Path) -> None:
    pair = Service("pair:*", Supervisor(HOST, str(conf)))
    assert pair.is_stopped()
    pair.start()
    assert len(pair.status().pids) == 2
    assert pair.is_running()
    Service("pair:pair_0", Supervisor(HOST, str(conf))).stop()
    assert pair.status().word == "pair:pair_0 STOPPED, pair:pair_1 RUNNING"
    assert (pair.is_running(), pair.is_stopped()) == (False, False)
    pair.stop()
    assert pair.is_stopped()


def test_a_program_that_does_not_exist_is_named_with_those_that_do(conf: Path) -> None:
    nobody = Service("nobody", Supervisor(HOST, str(conf)))
    for action in (nobody.is_running, nobody.stop, nobody.start, nobody.owner):
        with pytest.raises(HostError, match="supervisor has no program nobody") as caught:
            action()
        assert set(PROGRAMS) - {"pair"} < set(caught.value.expected.removeprefix("one of ").split(", "))
        assert caught.value.hint == f"supervisorctl -c {conf} status"
    error = failure(Service("pair", Supervisor(HOST, str(conf))))
    assert error.hint == 'in the inventory: services: ["pair:*"]'


def test_a_supervisor_that_does_not_run_or_is_not_configured_is_an_error(conf: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.conf"
    other.write_text(f"[supervisorctl]\nserverurl = unix://{conf.parent}/nobody\n")
    error = failure(Service("idle", Supervisor(HOST, str(other))))
    assert (error.summary, error.hint) == ("supervisor does not run", f"supervisord -c {other}")
    error = failure(Service("idle", Supervisor(HOST, str(tmp_path / "none.conf"))))
    assert error.summary == "supervisorctl cannot read its configuration"
    other.write_text("[nothing]\n")
    error = failure(Service("idle", Supervisor(HOST, str(other))))
    assert error.summary == "supervisorctl cannot read its configuration"


def test_supervisorctl_is_found_on_the_path_or_beside_this_python(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert Service("idle", Supervisor(HOST, str(conf))).is_stopped()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    error = failure(Service("idle", Supervisor(HOST, str(conf))), ProgramMissing)
    assert error.summary == "supervisorctl not found"


def test_the_demos_application_is_stopped_and_started_while_its_writer_goes_on_calling() -> None:
    with running_demo() as demo:
        environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        (shop,) = load_environment("demo", inventory=demo.inventory, environ=environ).targets
        assert shop.health_url is not None
        assert not shop.protected
        (application,) = services_of(shop, HOST)
        writer = Service("writer", Supervisor(HOST, shop.supervisor_conf))
        callers = writer.status().pids
        log = demo.folder.logs / "writer.log"
        check_health(shop.health_url)
        assert application.owner() == getpass.getuser()

        application.stop()

        with pytest.raises(ProofError, match="is not healthy"):
            check_health(shop.health_url)
        await_true(lambda: "waiting for the application" in log.read_text(), "the writer does not wait", 20)
        assert (DemoSupervisor(demo.state).states() or {})["application"] == "STOPPED"

        application.start()
        wait_until_healthy(shop.health_url, shop.health_timeout)

        before = _messages(demo.state.application_url)
        await_true(lambda: _messages(demo.state.application_url) > before, "the writer does not write", 20)
        assert writer.status().pids == callers


def test_the_writer_takes_an_answer_that_is_no_json_for_an_application_that_is_down() -> None:
    """A page of somebody else's, while the application is down, must not end it."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<h1>Back soon</h1>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        with pytest.raises(http.client.HTTPException, match="is not JSON"):
            Writer(f"http://127.0.0.1:{server.server_address[1]}").beat(0)
        serving.join()


def _messages(url: str) -> int:
    with urllib.request.urlopen(f"{url}/counts", timeout=10) as response:
        return int(json.load(response)["messages"])
