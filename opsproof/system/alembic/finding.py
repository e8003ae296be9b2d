"""Where an application's Alembic is, and how it is told which database is meant."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from opsproof.errors import MigrationError
from opsproof.system.hosts.host import Host
from opsproof.target import DatabaseAddress, Target

INI = "alembic.ini"
ENVIRONMENTS = (".venv", "venv", "env", ".env")
# The one in the folder, or those in the folders right below it, wherever links lead to.
_LOOK = """
cd -- "$0" 2>/dev/null || exit 0
if [ -f "$1" ]; then set -- "$1"; else set -- */"$1"; fi
for one in "$@"; do [ ! -f "$one" ] || readlink -f -- "$one"; done
"""


def find_ini(host: Host, target: Target) -> PurePosixPath:
    """Return the one alembic.ini of an application: in its release, its `deploy_folder`, or here.

    Raises:
        MigrationError: There is none, or there are several.
        HostError: The host cannot be reached.
    """
    folders = [f"{target.deploy_folder}/current", target.deploy_folder] if target.deploy_folder else []
    folders += [str(Path.cwd())] if host.is_local else []
    for folder in folders:
        found = inis_in(host, folder)
        if len(found) == 1:
            return PurePosixPath(found[0])
        if found:
            raise MigrationError(
                f"{target.name} has more than one alembic.ini",
                expected="one, or the inventory to say which",
                found=", ".join(found),
                kept="nothing was changed",
                hint=f"alembic_ini: {found[0]}",
            )
    places = f", or one in {', '.join(folders)}" if folders else ""
    raise MigrationError(
        f"{target.name} has no alembic.ini",
        expected=f"alembic_ini in the inventory{places}",
        found="none",
        kept="nothing was changed",
        hint="alembic_ini: /srv/app/alembic.ini",
    )


def inis_in(host: Host, folder: str) -> list[str]:
    """Return the one alembic.ini of a folder, or those of the folders right below it.

    Raises:
        HostError: The host cannot be reached.
    """
    return host.run("sh", "-c", _LOOK, folder, INI).stdout.splitlines()


def find_python(host: Host, ini: PurePosixPath) -> str:
    """Return the interpreter of the virtual environment beside an alembic.ini or above it.

    Where there is none it is this one; on another machine its python3.
    """
    for folder in (ini.parent, ini.parent.parent):
        for name in ENVIRONMENTS:
            if host.is_executable(str(folder / name / "bin" / "python")):
                return str(folder / name / "bin" / "python")
    return sys.executable if host.is_local else "python3"


def url_of(address: DatabaseAddress) -> str:
    """Return the address as a URL, every part percent-encoded; a socket's folder stands in the query."""
    user = quote(address.user, safe="")
    if address.password is not None:
        user += ":" + quote(address.password.reveal(), safe="")
    is_socket = address.host.startswith("/")
    place = "" if is_socket or not address.host else f"{address.host}:{address.port}"
    query = f"?host={quote(address.host, safe='/')}&port={address.port}" if is_socket else ""
    return f"postgresql://{user}{'@' if user else ''}{place}/{quote(address.name, safe='')}{query}"
