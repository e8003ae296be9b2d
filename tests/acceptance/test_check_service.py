"""`pytest checks/test_service.py`, with a real supervisord: what it finds, and that it finds nothing for nothing."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import supervisord
from tests.lab.action_run import ActionRun, Project, make_project
from tests.lab.moto_server import free_ports
from tests.lab.supervisord import running_supervisord
from tests.lab.waiting import await_true

CHECK = "checks/test_service.py"
PROGRAMS = {
    "steady": {},
    "down": {"command": "sh -c 'echo no database >&2; exit 3'", "startretries": "0"},
    "manual": {"command": "sleep 600", "autostart": "false"},
    "flapping": {"command": "sh -c 'sleep 0.7'", "startsecs": "0", "autorestart": "true"},
}


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="opsproof-check-") as path:
        made = make_project(Path(path) / "project")
        port, silent = free_ports(2)
        (Path(path) / "pages").mkdir()
        (Path(path) / "pages" / "health").write_text("well\n")
        serves = f"{sys.executable} -m http.server {port} --bind 127.0.0.1 --directory {path}/pages"
        with running_supervisord(Path(path), {**PROGRAMS, "steady": {"command": serves}}) as conf:
            await_true(lambda: "FATAL" in supervisord.control(conf, "status", "down"), "it did not fail")
            supervisord.control(conf, "start", "manual")
            common = {
                "database_url": "postgresql://nobody@127.0.0.1:1/none", "filestore": "none", "backup_dir": "store",
                "service_manager": "supervisor", "supervisor_conf": str(conf),
            }  # fmt: skip
            # A host of several groups would have the variables of all of them.
            pages = {"steady": f"{port}/health", "down": f"{silent}/health", "manual": f"{port}/none"}
            urls = {name: {"health_url": f"http://127.0.0.1:{page}"} for name, page in pages.items()}
            services = {
                name: {f"web-{name}": {**common, "services": [name], **urls.get(name, {})}} for name in PROGRAMS
            }
            bare = {name: value for name, value in common.items() if name != "supervisor_conf"}
            made.write_inventory({**services, "bare": {"web-bare": bare}})
            yield made


def check(project: Project, env: str, *arguments: str) -> ActionRun:
    before = project.stored()
    run = project.run(*arguments, action=CHECK, env=env)
    assert project.stored() == before
    return run


def test_a_service_as_it_must_be(project: Project) -> None:
    run = check(project, "steady")
    assert run.status == 0, run.output
    assert list(run.outcomes().values()) == ["passed"] * 5


FAULTS: dict[str, dict[str, tuple[str, ...]]] = {
    "down": {
        "test_services_run": ("supervisor: down does not run", "FATAL", "no database", "supervisorctl"),
        "test_application_listens": ("Nobody listens on port", "health_url, http://127.0.0.1:", "ss -ltnp"),
        "test_application_answers": ("is not healthy", "Connection refused", "curl -i"),
    },
    "manual": {
        "test_services_start_at_boot": ("manual is not started when the host is", "autostart = true"),
        "test_application_answers": ("is not healthy", "HTTP 404", "curl -i"),
    },
    "flapping": {"test_services_are_steady": ("flapping has been restarting", "supervisorctl")},
}


@pytest.mark.parametrize("env", FAULTS)
def test_what_is_wrong_is_told_with_its_evidence(project: Project, env: str) -> None:
    run = check(project, env)
    assert run.status == 1, run.output
    for step, words in FAULTS[env].items():
        case = run.case(step)
        assert case.outcome == "failed"
        assert all(word in case.message for word in words), case.message


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "by workers"])
def test_nothing_to_check_is_no_success(project: Project, workers: tuple[str, ...]) -> None:
    run = check(project, "bare", *workers)
    assert run.status == 1, run.output
    assert "none of 5 checks confirmed anything" in run.output
    assert "the inventory names no services of web-bare" in run.output
    assert "nothing tells a port of web-bare: no health_url, and no odoo_conf" in run.output
    assert "the inventory names no health_url of web-bare" in run.output
