"""Containers and pods, by stand-ins for docker, podman and kubectl that run the command here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opsproof.errors import HostError, ProgramMissing
from opsproof.system.hosts.host import Host
from opsproof.target import Connection
from tests.lab.filestores import add, filestore_of, freeze_and_read, live

__all__ = ["live"]

# Each notes its words, refuses other names, and becomes the command that comes after them.
STAND_IN = """#!/bin/sh
printf '%s\\n' "$*" >>{folder}/calls
while [ $# -gt 0 ]; do
    case $1 in
        exec|-i|--) shift ;;
        -u|-n) shift 2 ;;
        web) shift; [ "$1" != -- ] || shift; exec "$@" ;;
        *) echo "Error response from daemon: No such container: $1" >&2; exit 1 ;;
    esac
done
"""
KINDS = {
    "docker": ("web", "exec -i -u odoo web env OPSPROOF_COMMAND="),
    "podman": ("web", "exec -i -u odoo web env OPSPROOF_COMMAND="),
    "kubectl": ("live/web", "exec -i -n live web -- env OPSPROOF_COMMAND="),
    "community.docker.docker": ("web", "exec -i -u odoo web env OPSPROOF_COMMAND="),
}


@pytest.fixture(autouse=True)
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the three on the PATH; return where their calls are noted."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "podman", "kubectl"):
        (folder / name).write_text(STAND_IN.format(folder=tmp_path))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path / "calls"


def host_of(kind: str, name: str = "") -> Host:
    return Host(Connection(kind=kind, host=name or KINDS[kind][0], user="odoo"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_gets_there_with_its_variables_and_input(kind: str, stand_ins: Path) -> None:
    done = host_of(kind).run("sh", "-c", 'printf "%s " "$SECRET"; cat', env={"SECRET": "s3cret"}, stdin=b"in")
    assert done.stdout == "s3cret in"
    assert stand_ins.read_text().startswith(KINDS[kind][1])
    assert "s3cret" not in stand_ins.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_streamed_from_there(kind: str, live: Path) -> None:
    name = add(live, b"content" * 100_000)
    assert freeze_and_read(filestore_of(live, host=host_of(kind))) == {name: b"content" * 100_000}


def test_a_container_that_is_not_there() -> None:
    with pytest.raises(HostError, match="db cannot be reached by docker") as caught:
        host_of("docker", "db").run("true")
    assert caught.value.hint == "docker ps"


def test_an_engine_that_is_not_here(stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(stand_ins.parent))
    with pytest.raises(ProgramMissing, match="docker not found"):
        host_of("docker").run("true")
