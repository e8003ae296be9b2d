"""Where an application's Alembic is, and how it is told which database is meant."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from opsproof.errors import MigrationError
from opsproof.system.host import Host
from opsproof.target import DatabaseAddress, Target

INI = "alembic.ini"
ENVIRONMENTS = (".venv", "venv", "env", ".env")


def find_ini(target: Target) -> PurePosixPath:
    """Return the one alembic.ini of an application.

    Raises:
        MigrationError: There is none, or there are several.
    """
    folders = [Path(folder) for folder in (target.deploy_folder, ".") if folder]
    if target.deploy_folder:
        folders.insert(0, Path(target.deploy_folder) / "current")
    for folder in folders:
        found = [folder / INI] if (folder / INI).is_file() else sorted(folder.glob(f"*/{INI}"))
        if len(found) == 1:
            return PurePosixPath(found[0].resolve())
        if found:
            raise MigrationError(
                f"{target.name} has more than one alembic.ini",
                expected="one, or the inventory to say which",
                found=", ".join(map(str, found)),
                kept="nothing was changed",
                hint=f"alembic_ini: {found[0].resolve()}",
            )
    raise MigrationError(
        f"{target.name} has no alembic.ini",
        expected=f"alembic_ini in the inventory, or one in {', '.join(str(one.resolve()) for one in folders)}",
        found="none",
        kept="nothing was changed",
        hint="alembic_ini: /srv/app/alembic.ini",
    )


def find_python(host: Host, ini: PurePosixPath) -> str:
    """Return the interpreter of the virtual environment beside an alembic.ini or above it; this one where none is."""
    for folder in (ini.parent, ini.parent.parent):
        for name in ENVIRONMENTS:
            if host.is_executable(str(folder / name / "bin" / "python")):
                return str(folder / name / "bin" / "python")
    return sys.executable


def url_of(address: DatabaseAddress) -> str:
    """Return the address as a URL, every part percent-encoded; a socket's folder stands in the query."""
    user = quote(address.user, safe="")
    if address.password is not None:
        user += ":" + quote(address.password.reveal(), safe="")
    is_socket = address.host.startswith("/")
    place = "" if is_socket or not address.host else f"{address.host}:{address.port}"
    query = f"?host={quote(address.host, safe='/')}&port={address.port}" if is_socket else ""
    return f"postgresql://{user}{'@' if user else ''}{place}/{quote(address.name, safe='')}{query}"
