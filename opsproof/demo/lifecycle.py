"""Starting, finding again, stopping and wiping the demo."""

from __future__ import annotations

import http.client
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from opsproof.demo import bucket, cluster
from opsproof.demo.binaries import copy_binaries, require_extra
from opsproof.demo.configuration import write_configuration
from opsproof.demo.folder import DemoFolder, find_folder
from opsproof.demo.preparing import Progress, prepare
from opsproof.demo.processes import end_processes, find_processes, wait_until_gone
from opsproof.demo.releases import begin_with_first
from opsproof.demo.state import State, load_state, new_state, renew, save_state
from opsproof.demo.supervision import (
    PROGRAMS,
    Supervisor,
    enable_programs,
    is_running,
    runs_a_release,
    start_supervisor,
    tail,
)
from opsproof.errors import ConfigurationError, HostError

_log = logging.getLogger(__name__)

_ANSWER_SECONDS = 40.0
_PATIENCE_SECONDS = 5.0
_STOP_SECONDS = 40.0


@dataclass(frozen=True)
class ProgramStatus:
    """How one of the demo's programs does: supervisor's word for it, whether it answers, and where."""

    name: str
    state: str
    answers: bool
    address: str


def start(progress: Progress | None = None) -> Path:
    """Start what is not running of the demo, find again what is, and return the path of its hosts.yml.

    Two callers at once start one demo. The first run makes release, cluster, schema and data; later ones leave those as
    they find them. Where a release was deployed that is not well, that is told, and is no error.

    Args:
        progress: Is called with one line per step that takes a while; without it, they are logged.

    Raises:
        ConfigurationError: The extra `demo` is not installed, or the folder is not usable.
        HostError: A program did not start or does not answer.
    """
    require_extra()
    say = progress or _log.info
    folder = find_folder()
    with folder.locked():
        state = load_state(folder)
        if state is not None and not runs_a_release(folder):
            # An earlier opsproof started it: a deploy would change nothing that runs.
            _stop(folder, say)
        if state is None or Supervisor(state).states() is None:
            state = _start_from_nothing(folder, state, say)
        elif not folder.inventory.exists():
            write_configuration(folder, state)
        begin_with_first(folder)
        _start_programs(folder, state, say)
    return folder.inventory


def stop(progress: Progress | None = None) -> bool:
    """Stop the demo, wait until all its processes are gone, and return whether anything ran.

    The database and the application's files stay; what was in the bucket is lost, for moto keeps it in memory.

    Raises:
        HostError: A process would not end.
    """
    say = progress or _log.info
    folder = find_folder()
    if not folder.path.is_dir() or not folder.is_ours():
        # Never started, or removed by hand, wholly or in part, while it ran.
        return bool(end_processes(folder))
    with folder.locked():
        return _stop(folder, say)


def reset(progress: Progress | None = None) -> bool:
    """Stop the demo and remove its folder with everything in it; return whether there was one.

    Raises:
        ConfigurationError: The folder was not made by the demo.
        HostError: A process would not end.
    """
    say = progress or _log.info
    folder = find_folder()
    if not folder.path.exists():
        return bool(end_processes(folder))
    if not folder.is_ours():
        raise ConfigurationError(
            f"{folder.path} is not the demo's folder",
            expected="the marker that `start` puts into the folder it makes",
            found="none",
            kept="everything in it",
            hint="unset OPSPROOF_DEMO_DIR",
        )
    with folder.locked():
        _stop(folder, say)
        say(f"removing {folder.path}")
        _remove_sockets(folder)
        folder.remove()
    return True


def status() -> list[ProgramStatus]:
    """Return how each of the demo's programs does: `STOPPED` where there is no demo, `ORPHANED` without supervisor."""
    folder = find_folder()
    state = load_state(folder) if folder.is_ours() else None
    if state is None:
        return [ProgramStatus(name, "STOPPED", False, "") for name in PROGRAMS]
    states = Supervisor(state).states()
    if states is None:
        # A supervisor that was killed leaves its programs behind; `start` and `stop` both end them.
        states = dict.fromkeys(PROGRAMS, "ORPHANED") if find_processes(folder) else {}
    addresses = {
        "postgres": f"127.0.0.1:{state.postgres_port}",
        "s3": state.endpoint_url,
        "application": state.application_url,
        "writer": "",
    }
    return [
        ProgramStatus(name, states.get(name, "STOPPED"), _answers(name, state, states), addresses[name])
        for name in PROGRAMS
    ]


def _start_from_nothing(folder: DemoFolder, state: State | None, say: Progress) -> State:
    """Start a supervisor over a prepared folder, in place of one that was stopped, killed or never was."""
    say("starting the demo ..." if state else f"making the demo in {folder.path} ...")
    # What a killed supervisor left running holds the ports and the data directory.
    end_processes(folder)
    state = renew(folder, state or new_state(folder))
    save_state(folder, state)
    copy_binaries(folder)
    write_configuration(folder, state)
    cluster.create_cluster(folder, state)
    start_supervisor(folder, state)
    return state


def _start_programs(folder: DemoFolder, state: State, say: Progress) -> None:
    supervisor = Supervisor(state)
    states = supervisor.states() or {}
    silent = [name for name in PROGRAMS if not _answers(name, state, states)]
    for name in ("postgres", "s3"):
        if name in silent:
            _start_program(name, folder, state, say)
    if not state.prepared:
        _wait_for("postgres", folder, state)
        prepare(folder, state, say)
    for name in ("postgres", "s3"):
        if name in silent:
            _wait_for(name, folder, state)
    if bucket.make_bucket(state) and state.prepared:
        say(f"made the bucket {bucket.BUCKET} (what the last one held went with the server that held it)")
    for name in ("application", "writer"):
        if name in silent and not _answers(name, state, supervisor.states() or {}):
            try:
                _start_program(name, folder, state, say)
                _wait_for(name, folder, state)
            except HostError:
                if name != "application" or not state.prepared:
                    raise
                # Its release was deployed: what goes back from there needs the rest of the demo, and this no error.
                say(f"the application is not well, which {folder.logs / 'application.log'} explains; the demo goes on")
                say("go back: pytest actions/test_recover.py, or else pytest actions/test_rollback.py --type=release")
    enable_programs(folder, state)


def _start_program(name: str, folder: DemoFolder, state: State, say: Progress) -> None:
    supervisor = Supervisor(state)
    if is_running((supervisor.states() or {}).get(name)):
        if name == "application" and _ask_health(state):
            return  # it runs and is not well, which another start would not change
        try:
            # Supervisor may have started it a moment ago.
            _wait_for(name, folder, state, seconds=_PATIENCE_SECONDS)
        except HostError:
            say(f"{name} runs but does not answer: starting it again ...")
            supervisor.stop(name)
        else:
            return
    else:
        say(f"starting {name} ...")
    supervisor.start(name)


def _wait_for(name: str, folder: DemoFolder, state: State, seconds: float = _ANSWER_SECONDS) -> None:
    supervisor = Supervisor(state)
    deadline = time.monotonic() + seconds
    while True:
        states = supervisor.states() or {}
        if _answers(name, state, states):
            return
        if name == "application" and state.prepared and _ask_health(state):
            # It has started, so that only its database can still keep it from being well.
            deadline = min(deadline, time.monotonic() + _PATIENCE_SECONDS)
        if states.get(name) == "FATAL" or time.monotonic() > deadline:
            reason = cluster.trouble(state) if name == "postgres" else ""
            raise HostError(
                f"the demo's {name} does not answer",
                expected=f"an answer within {seconds:.0f} s",
                found="\n".join(
                    [states.get(name, "nobody supervises it"), *reason.splitlines(), tail(folder.logs / f"{name}.log")]
                ),
                kept="the data; what else was started keeps running",
                # A stopped demo looks for other ports, should a stranger listen on one of its own.
                hint="python -m opsproof.demo stop && python -m opsproof.demo start",
            )
        time.sleep(0.05)


def _answers(name: str, state: State, states: dict[str, str]) -> bool:
    """Tell whether a program does its work; the writer, who listens nowhere, when it has run for a second."""
    if not is_running(states.get(name)):
        return False
    if name == "postgres":
        return not cluster.trouble(state)
    if name == "s3":
        return bucket.answers(state)
    if name == "application":
        return _ask_health(state) == 200
    return states[name] == "RUNNING"


def _ask_health(state: State) -> int:
    """Return the HTTP status of /health, 0 where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", state.application_port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _stop(folder: DemoFolder, say: Progress) -> bool:
    running = bool(find_processes(folder))
    if running:
        say("stopping the demo ...")
    state = _state_if_readable(folder)
    if state is not None and Supervisor(state).shutdown():
        # In its own order: the writer first, PostgreSQL last.
        wait_until_gone(folder, _STOP_SECONDS)
    end_processes(folder)
    return running


def _remove_sockets(folder: DemoFolder) -> None:
    """Remove the folder of the sockets where it is not inside the demo's."""
    state = _state_if_readable(folder)
    if state is None:
        return
    sockets = Path(state.sockets)
    if folder.path in sockets.parents or not sockets.is_dir():
        return
    for leaf in (state.server_sockets, state.supervisor_socket.parent):
        for entry in leaf.iterdir() if leaf.is_dir() else ():
            entry.unlink()
        if leaf.is_dir():
            leaf.rmdir()
    sockets.rmdir()


def _state_if_readable(folder: DemoFolder) -> State | None:
    """Return the state; None where it is damaged, for stopping and wiping must work then too."""
    try:
        return load_state(folder)
    except ConfigurationError:
        return None
