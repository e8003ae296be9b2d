"""A release to be packed, and a folder of releases to send it to."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from opsproof.system.hosts.host import Host
from opsproof.system.releases.layout import Releases
from opsproof.system.releases.package import Package
from opsproof.system.releases.source import pack
from opsproof.system.releases.upload import upload
from opsproof.target import Connection

ODD = "odd name; $(touch x) 'é"


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    """A folder without releases, of this machine."""
    folder = tmp_path / "srv"
    folder.mkdir()
    return Releases(Host(Connection()), str(folder))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a program, a link, an empty folder, an odd name, and git's own files."""
    folder = tmp_path / "source"
    (folder / "app").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "app" / "main.py").write_text("print('one')\n")
    (folder / "app" / ODD).write_bytes(b"\x00\xff")
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "link").symlink_to("app/main.py")
    return folder


def packed(source: str | Path, tmp_path: Path) -> Package:
    """Pack a release, each into a folder of its own."""
    place = tmp_path / f"packed-{len(list(tmp_path.glob('packed-*')))}"
    place.mkdir()
    return pack(str(source), place)


def git(folder: Path, *words: str) -> str:
    """Run git as nobody in particular; return what it says."""
    own = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *own, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def deploy(releases: Releases, package: Package) -> str:
    """Send a package, let `current` lead to it, and return its name."""
    name = releases.next_name(releases.look().names)
    upload(releases, name, package)
    releases.flip(name)
    releases.unmark(name)
    return name


def names(releases: Releases) -> list[str]:
    """Return what is in the folder of releases, hidden files too."""
    return sorted(one.name for one in Path(releases.root).iterdir())
