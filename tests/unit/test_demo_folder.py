"""The demo's folder, its marker and lock, its ports, and which processes are taken for the demo's."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import opsproof.demo
from opsproof.demo.binaries import require_extra
from opsproof.demo.cluster import check_reachable
from opsproof.demo.folder import DemoFolder, find_folder
from opsproof.demo.processes import end_processes, find_processes
from opsproof.demo.state import load_state, new_state, renew, save_state
from opsproof.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path: Path) -> DemoFolder:
    return DemoFolder((tmp_path / "demo").resolve())


@pytest.fixture
def short_folder() -> Iterator[DemoFolder]:
    path = Path(tempfile.mkdtemp(prefix="ops-")).resolve()
    yield DemoFolder(path)
    shutil.rmtree(path, ignore_errors=True)


def test_the_variable_names_the_folder_and_xdg_the_cache(tmp_path: Path) -> None:
    assert find_folder({"OPSPROOF_DEMO_DIR": str(tmp_path)}).path == tmp_path.resolve()
    default = find_folder({"XDG_CACHE_HOME": str(tmp_path)}).path
    expected = Path("/var/cache/opsproof/demo") if os.geteuid() == 0 else tmp_path.resolve() / "opsproof" / "demo"
    assert default == expected


@pytest.mark.parametrize("name", ['a"b', "a'b", "100%", "a #b", "{{a}}"])
def test_a_path_that_a_configuration_file_cannot_carry_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot have"):
        find_folder({"OPSPROOF_DEMO_DIR": str(tmp_path / name)})


def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    theirs = Path("/usr")
    if os.geteuid() == 0:
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        os.chown(theirs, 65534, 65534)
    with pytest.raises(ConfigurationError, match="somebody else's"):
        find_folder({"OPSPROOF_DEMO_DIR": str(theirs)})


def test_a_folder_with_other_things_in_it_is_neither_used_nor_wiped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    monkeypatch.setenv("OPSPROOF_DEMO_DIR", str(tmp_path))
    for verb in (opsproof.demo.start, opsproof.demo.reset):
        with pytest.raises(ConfigurationError, match="is not the demo's folder"):
            verb()
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_stop_where_there_is_no_demo_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSPROOF_DEMO_DIR", str(tmp_path / "none"))
    assert opsproof.demo.stop() is False
    assert opsproof.demo.reset() is False
    assert {one.state for one in opsproof.demo.status()} == {"STOPPED"}
    assert list(tmp_path.iterdir()) == []


def test_a_missing_part_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def without_moto(name: str, package: str | None = None) -> Any:
        return None if name == "moto" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_moto)
    with pytest.raises(ConfigurationError) as caught:
        require_extra()
    assert caught.value.found == "no moto"
    assert "./bootstrap demo" in caught.value.hint


def test_the_lock_lets_one_in_at_a_time_also_past_a_reset(folder: DemoFolder) -> None:
    inside: list[str] = []
    worst: list[int] = []

    def enter(name: str) -> None:
        for _ in range(10):
            with folder.locked():
                inside.append(name)
                worst.append(len(inside))
                time.sleep(0.002)
                inside.remove(name)
                if name == "wiper":
                    folder.remove()

    threads = [threading.Thread(target=enter, args=(name,)) for name in ("wiper", "one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(worst) == 30
    assert max(worst) == 1


def test_many_claim_an_empty_folder_at_once_and_none_takes_it_for_a_strangers(tmp_path: Path) -> None:
    refused: list[Exception] = []
    for number in range(30):
        folder = DemoFolder(tmp_path.resolve() / str(number))
        folder.path.mkdir()
        barrier = threading.Barrier(6)

        def claim(folder: DemoFolder = folder, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                with folder.locked():
                    (folder.path / "state.json").touch()
            except ConfigurationError as error:
                refused.append(error)

        threads = [threading.Thread(target=claim) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert folder.is_ours()
    assert refused == []


def test_a_claim_that_was_killed_half_way_is_no_obstacle(folder: DemoFolder) -> None:
    folder.path.mkdir()
    (folder.path / ".opsproof-demo.json.4711").touch()
    with folder.locked():
        assert folder.is_ours()


def test_another_layout_is_refused(folder: DemoFolder) -> None:
    with folder.locked():
        assert folder.is_ours()
    (folder.path / "opsproof-demo.json").write_text('{"format": 99}')
    with pytest.raises(ConfigurationError, match="another version"):
        folder.is_ours()


def test_the_state_is_read_back_private_and_shows_no_secret(folder: DemoFolder) -> None:
    with folder.locked():
        state = new_state(folder)
        save_state(folder, state)
        assert load_state(folder) == state
    assert folder.state.stat().st_mode & 0o777 == 0o600
    shown = repr(state)
    for secret in (state.superuser_password, state.application_password, state.access_key, state.secret_key):
        assert len(secret) >= 20
        assert secret not in shown


def test_a_damaged_state_says_how_to_go_on(folder: DemoFolder) -> None:
    with folder.locked():
        folder.state.write_text('{"postgres_port": 1')
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        load_state(folder)
    assert caught.value.hint == "python -m opsproof.demo reset"


def test_a_port_that_a_stranger_took_is_changed_and_the_others_kept(short_folder: DemoFolder) -> None:
    state = new_state(short_folder)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", state.s3_port))
        stranger.listen()
        renewed = renew(short_folder, state)
    assert renewed.s3_port != state.s3_port
    assert (renewed.postgres_port, renewed.application_port) == (state.postgres_port, state.application_port)
    assert renewed.sockets == str(short_folder.path / "run")


def test_sockets_of_a_deep_folder_go_to_tmp(short_folder: DemoFolder) -> None:
    deep = DemoFolder(short_folder.path / ("d" * 100))
    with deep.locked():
        state = renew(deep, new_state(deep))
        sockets = Path(state.sockets)
        try:
            assert deep.path not in sockets.parents
            assert len(os.fsencode(state.server_sockets / ".s.PGSQL.00000.lock")) <= 107
            assert (sockets / "control").stat().st_mode & 0o777 == 0o700
            assert renew(deep, state).sockets == state.sockets
        finally:
            shutil.rmtree(sockets)


def test_a_folder_closed_to_the_servers_user_names_the_one_that_is_closed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    folder = DemoFolder(closed.resolve() / "demo")
    with folder.locked(), pytest.raises(ConfigurationError, match="cannot enter") as caught:
        check_reachable(folder, dataclasses.replace(new_state(folder), server_user="daemon"))
    assert "has mode 0700" in caught.value.found


def test_a_process_outlives_neither_its_folder_nor_the_marker(
    folder: DemoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody removed the running demo by hand: `stop` still finds what ran in it."""
    monkeypatch.setenv("OPSPROOF_DEMO_DIR", str(folder.path))
    with _lookalike(folder) as ours:
        (folder.path / "left-over").touch()
        assert opsproof.demo.stop() is True
        assert ours.wait(timeout=5) == -15
    shutil.rmtree(folder.path)
    with _lookalike(folder) as ours:
        shutil.rmtree(folder.path)
        assert opsproof.demo.stop() is True
        assert ours.wait(timeout=5) == -15


def test_only_the_demos_own_processes_are_found_and_ended(folder: DemoFolder) -> None:
    """A bystander in the folder lives on; one that runs a module of the demo's, there, is ended."""
    folder.path.mkdir()
    bystander = subprocess.Popen(["sleep", "60"], cwd=folder.path)
    elsewhere = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], cwd=folder.path.parent)
    try:
        with _lookalike(folder) as ours:
            assert [(one.pid, one.program) for one in find_processes(folder)] == [(ours.pid, "moto.server")]
            assert [one.pid for one in end_processes(folder)] == [ours.pid]
            assert ours.wait(timeout=5) == -15
        assert bystander.poll() is None
        assert elsewhere.poll() is None
    finally:
        for process in (bystander, elsewhere):
            process.kill()
            process.wait()


@contextmanager
def _lookalike(folder: DemoFolder) -> Iterator[subprocess.Popen[bytes]]:
    """Run what looks like the demo's S3 server, in the demo's folder."""
    module = folder.path / "moto"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    (module / "server.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen([sys.executable, "-m", "moto.server"], cwd=folder.path, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            yield process
        finally:
            process.kill()
