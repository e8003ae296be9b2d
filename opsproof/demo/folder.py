"""The one folder that the demo lives in: where it is, what lies where, who may enter, one caller at a time.

`OPSPROOF_DEMO_DIR` names it; without, it is /var/cache/opsproof/demo for root (PostgreSQL refuses to run as root, and
the user that it then runs as cannot enter root's home) and ${XDG_CACHE_HOME:-~/.cache}/opsproof/demo for others.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opsproof.errors import ConfigurationError, HostError

FORMAT = 1
_MARKER = "opsproof-demo.json"
_LOCK = "lock"
_LOCK_SECONDS = 180.0
_LOOKS = 3
# Supervisor's file format, shlex, YAML and Ansible each give one of these a meaning of its own.
_AWKWARD = ("\n", "%", '"', "'", "\\", " ;", " #", "{{", "{%")


@dataclass(frozen=True)
class DemoFolder:
    """The demo's folder and the names inside it; nothing here reads or starts anything but the lock and marker."""

    path: Path

    @property
    def state(self) -> Path:
        """Ports and passwords, 0600."""
        return self.path / "state.json"

    @property
    def inventory(self) -> Path:
        """The generated hosts.yml."""
        return self.path / "hosts.yml"

    @property
    def credentials(self) -> Path:
        """The AWS credentials file with the profile `demo`, 0600."""
        return self.path / "aws-credentials"

    @property
    def server(self) -> Path:
        """PostgreSQL's own folder, which belongs to the user that it runs as."""
        return self.path / "postgres"

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.server / "data"

    @property
    def deploy(self) -> Path:
        """The application's `deploy_folder`: `releases/`, `shared/`, `current`, and beside them its data_dir."""
        return self.path / "shop"

    @property
    def releases(self) -> Path:
        """Every release that is deployed, in a folder of its own."""
        return self.deploy / "releases"

    @property
    def current(self) -> Path:
        """The link to the release that is live."""
        return self.deploy / "current"

    @property
    def shared(self) -> Path:
        """What releases share."""
        return self.deploy / "shared"

    @property
    def odoo_conf(self) -> Path:
        """The application's configuration, with its database password, 0600."""
        return self.shared / "odoo.conf"

    @property
    def alembic_ini(self) -> Path:
        """The configuration of the migrations of the release that is live."""
        return self.current / "alembic.ini"

    @property
    def data_dir(self) -> Path:
        """Odoo's data_dir: holds `filestore/{dbname}/`."""
        return self.deploy / "data"

    @property
    def logs(self) -> Path:
        """One log per supervised program."""
        return self.path / "logs"

    @property
    def supervisor_conf(self) -> Path:
        """Supervisor's configuration: `supervisorctl -c` takes it."""
        return self.path / "supervisord.conf"

    def is_ours(self) -> bool:
        """Tell whether the demo made this folder, by its marker.

        Raises:
            ConfigurationError: The demo in it was made by an opsproof with another layout.
        """
        try:
            marker = json.loads((self.path / _MARKER).read_text())
        except FileNotFoundError:
            return False
        except ValueError:
            marker = {}
        found = marker.get("format") if isinstance(marker, dict) else None
        if found != FORMAT:
            raise ConfigurationError(
                f"the demo in {self.path} was made by another version of opsproof",
                expected=f"layout {FORMAT}",
                found=f"layout {found}",
                kept="nothing was started or removed",
                hint=f"rm -r '{self.path}'  (after stopping it with the opsproof that made it)",
            )
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if need be, and hold it against every other caller.

        Raises:
            ConfigurationError: The folder exists, has something in it, and is not the demo's.
            HostError: Another caller held it for three minutes.
        """
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            self._claim()
            try:
                descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # a reset removed the folder between the two lines
            try:
                self._wait_for(descriptor, deadline)
                if self._is_current(descriptor):
                    yield
                    return
            finally:
                os.close(descriptor)

    def remove(self) -> None:
        """Remove everything, the lock last; the caller holds it and has seen `is_ours`."""
        for entry in list(self.path.iterdir()):
            if entry.name in {_MARKER, _LOCK}:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        (self.path / _MARKER).unlink()
        (self.path / _LOCK).unlink()
        try:
            self.path.rmdir()
        except OSError:
            # Someone who waited for the lock has already begun a new demo here.
            return

    def _claim(self) -> None:
        """Make the folder and put the marker in, unless somebody else's things are there."""
        self._make()
        foreign: set[str] = set()
        for _ in range(_LOOKS):
            try:
                # Listed before the marker is looked for: whoever claims the folder puts the marker in first.
                names = {entry.name for entry in self.path.iterdir()}
                if self.is_ours():
                    return
                foreign = {name for name in names - {_LOCK} if not name.startswith(f".{_MARKER}.")}
                if not foreign:
                    write_private(self.path / _MARKER, json.dumps({"format": FORMAT}) + "\n")
                    return
            except FileNotFoundError:
                return  # removed meanwhile: the caller tries again
            # Or a reset took the marker away since the listing: then the next one is empty.
            time.sleep(0.02)
        raise ConfigurationError(
            f"{self.path} is not the demo's folder",
            expected="an empty or a new folder",
            found=", ".join(sorted(foreign)[:5]) + (", ..." if len(foreign) > 5 else ""),
            kept="everything in it",
            hint="export OPSPROOF_DEMO_DIR=/var/tmp/opsproof-demo",
        )

    def _make(self) -> None:
        try:
            make_folder(self.path.parent, 0o755)
            self.path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the demo's folder {self.path} cannot be made",
                found=error.strerror or str(error),
                kept="nothing was made",
                hint="export OPSPROOF_DEMO_DIR=/var/tmp/opsproof-demo",
            ) from error

    def _wait_for(self, descriptor: int, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise HostError(
                        "another process is starting or stopping the demo",
                        expected=f"the lock on {self.path} within {_LOCK_SECONDS:.0f} s",
                        kept="nothing was started or removed",
                        hint="python -m opsproof.demo status",
                    ) from None
                time.sleep(0.05)
            else:
                return

    def _is_current(self, descriptor: int) -> bool:
        """Tell whether the file locked is still the one of that name: a reset removes it while others wait."""
        try:
            return os.path.samestat(os.fstat(descriptor), (self.path / _LOCK).stat())
        except FileNotFoundError:
            return False


def find_folder(environ: Mapping[str, str] | None = None) -> DemoFolder:
    """Return the demo's folder, which need not exist yet.

    Raises:
        ConfigurationError: The path has characters that one of the demo's configuration files cannot carry, or the
            folder belongs to somebody else.
    """
    known = os.environ if environ is None else environ
    if chosen := known.get("OPSPROOF_DEMO_DIR"):
        path = Path(chosen).expanduser()
    elif os.geteuid() == 0:
        path = Path("/var/cache/opsproof/demo")
    else:
        path = Path(known.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "opsproof" / "demo"
    # Resolved, because /proc tells a process's working directory without symbolic links.
    path = path.resolve()
    for characters in _AWKWARD:
        if characters in str(path):
            raise ConfigurationError(
                f"the demo's folder cannot have {characters!r} in its path",
                found=str(path),
                kept="nothing was made",
                hint="export OPSPROOF_DEMO_DIR=/var/tmp/opsproof-demo",
            )
    _refuse_strangers(path)
    return DemoFolder(path)


def _refuse_strangers(path: Path) -> None:
    """Refuse another user's folder: what lies in it is run, for root as root."""
    try:
        owner = path.stat().st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        owner, found = None, f"{path}: {error.strerror}"
    else:
        found = f"{path} belongs to user id {owner}"
    if owner != os.geteuid():
        raise ConfigurationError(
            "the demo's folder is somebody else's",
            expected=f"a folder of user id {os.geteuid()}, or none yet",
            found=found,
            kept="everything in it",
            hint="export OPSPROOF_DEMO_DIR=/var/tmp/opsproof-demo-$USER",
        )


def make_folder(path: Path, mode: int, *, user: int = -1, group: int = -1) -> None:
    """Make a folder, and its parents as the umask has them, with exactly this mode and owner."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True)
        path.chmod(mode)
    if user != -1 and (path.stat().st_uid, path.stat().st_gid) != (user, group):
        os.chown(path, user, group)
    if user != -1 and stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
