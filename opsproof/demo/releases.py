"""The releases of the demo's application: the one that it begins with, and those that one can write and deploy.

A release is what `actions/test_deploy.py --release=FOLDER` takes: alembic.ini, REVISION, and the source of
`opsproof/demo/application` as the package `shop`, with the addons that this release has. Where they are deployed,
`shop/` in the demo's folder is laid out as for any application: `releases/`, `shared/` with odoo.conf, `current`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from opsproof.demo.folder import DemoFolder, make_folder
from opsproof.errors import ConfigurationError, HostError

SHARED = ("odoo.conf",)
_PACKAGE = "shop"
_SOURCE = Path(__file__).parent / "application"
_ALEMBIC_INI = """\
[alembic]
script_location = %(here)s/shop/migrations
odoo_conf = %(here)s/odoo.conf
"""


@dataclass(frozen=True)
class DemoRelease:
    """A release: its name, what it is in a line, and the addons that it has."""

    name: str
    says: str
    addons: tuple[str, ...]


RELEASES = (
    DemoRelease("1.0", "what the demo begins with", ()),
    DemoRelease("1.1", "customers review their orders: a table, by one migration, and a page /reviews", ("reviews",)),
    DemoRelease("1.2", "broken: one more migration, then it never gets healthy", ("reviews", "answers")),
)
_ADDONS = frozenset(addon for one in RELEASES for addon in one.addons)


def write_release(name: str, folder: Path) -> None:
    """Write the source of a release into a new or an empty folder.

    Args:
        name: One of `RELEASES`.
        folder: Its parent need not be there.

    Raises:
        ConfigurationError: There is something in the folder, or it cannot be made.
        HostError: A file cannot be written.
    """
    release = next(one for one in RELEASES if one.name == name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_taken = any(folder.iterdir())
    except OSError as error:
        raise ConfigurationError(
            f"{folder} is no folder for a release",
            expected="a new or an empty folder",
            found=error.strerror or str(error),
            kept="nothing was written",
            hint=f"python -m opsproof.demo release {name} /var/tmp/shop-{name}",
        ) from error
    if is_taken:
        raise ConfigurationError(
            f"{folder} is not empty",
            expected="a new or an empty folder: what is in it may be somebody's work",
            found=", ".join(sorted(one.name for one in folder.iterdir())[:5]),
            kept="everything in it",
            hint=f"rm -r '{folder}'   or name another folder",
        )
    try:
        shutil.copytree(_SOURCE, folder / _PACKAGE, ignore=_leave_out(release))
        (folder / "alembic.ini").write_text(_ALEMBIC_INI, encoding="utf-8")
        (folder / "REVISION").write_text(f"{name}\n", encoding="utf-8")
    except (OSError, shutil.Error) as error:
        raise HostError(
            f"release {name} could not be written to {folder}",
            found=str(error),
            kept="what is there is not whole",
            hint=f"df -h '{folder}'; rm -r '{folder}'",
        ) from error


def begin_with_first(folder: DemoFolder) -> None:
    """Lay out the demo's `deploy_folder` with the first release, unless there is a release that is live.

    Later starts leave it alone: what is there is what somebody deployed.

    Raises:
        HostError: A file cannot be written.
    """
    if folder.current.is_symlink() and folder.current.is_dir():
        return
    releases = folder.releases
    for path in (folder.deploy, releases, folder.shared):
        make_folder(path, 0o700)
    moment = datetime.now(UTC)
    while (releases / (stamp := f"{moment:%Y%m%d%H%M%S}")).exists():
        moment += timedelta(seconds=1)
    # Under the name that a deploy gives to what is not whole: whatever is killed here, the next deploy clears it away.
    half = releases / f".{stamp}.uploading"
    shutil.rmtree(half, ignore_errors=True)
    write_release(RELEASES[0].name, half)
    for name in SHARED:
        (half / name).symlink_to(folder.shared / name)
    half.rename(releases / stamp)
    link = folder.deploy / ".current.opsproof"
    link.unlink(missing_ok=True)
    link.symlink_to(f"releases/{stamp}")
    link.replace(folder.current)


def _leave_out(release: DemoRelease) -> Callable[[str, list[str]], set[str]]:
    """Return what copytree passes over: the files of the addons that this release has not, and compiled ones."""
    others = _ADDONS - set(release.addons)

    def ignore(_folder: str, names: list[str]) -> set[str]:
        ends = tuple(f"_{one}.py" for one in others)  # of an addon, and of its migration
        return {name for name in names if name == "__pycache__" or name.endswith(ends)}

    return ignore
