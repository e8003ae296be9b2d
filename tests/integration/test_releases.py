"""Releases as they lie on a host: sent, named, flipped, pruned; every refusal leaves what was there."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.errors import HostError, ProofError
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.transport import close_connections
from opsproof.system.releases.layout import Releases
from opsproof.system.releases.ledger import LEDGER, Entry
from opsproof.system.releases.upload import read_files, upload
from opsproof.target import Connection
from tests.lab import disks
from tests.lab.releasing import ODD, deploy, names, packed, releases, source
from tests.lab.ssh_server import SshServer, ssh_server

__all__ = ["releases", "source", "ssh_server"]


def test_current_is_read_as_a_link_and_flipped_by_one_rename(source: Path, releases: Releases, tmp_path: Path) -> None:
    package = packed(source, tmp_path)
    first, second = deploy(releases, package), deploy(releases, package)
    assert second > first
    # By its modification time the first is the newest now.
    os.utime(releases.path(first), (4e9, 4e9))
    assert releases.look().current == second
    releases.flip(first)
    assert releases.look().current == first
    assert Path(releases.folder, "current").resolve() == Path(releases.path(first)).resolve()
    assert sorted(one.name for one in Path(releases.folder).iterdir()) == ["current", "releases"]


def test_a_current_that_is_a_folder_is_refused(source: Path, releases: Releases, tmp_path: Path) -> None:
    name = releases.next_name(())
    upload(releases, name, packed(source, tmp_path))
    precious = Path(releases.folder, "current", "precious")
    precious.mkdir(parents=True)
    with pytest.raises(ProofError, match="is a real folder"):
        releases.look()
    with pytest.raises(ProofError, match="cannot lead to"):
        releases.flip(name)
    assert precious.is_dir()


def test_a_current_that_leads_elsewhere_is_refused(releases: Releases, tmp_path: Path) -> None:
    Path(releases.folder, "current").symlink_to(tmp_path)
    with pytest.raises(ProofError, match="leads to no release"):
        releases.look()


def test_nothing_leads_to_a_release_that_is_not_there(source: Path, releases: Releases, tmp_path: Path) -> None:
    name = deploy(releases, packed(source, tmp_path))
    with pytest.raises(ProofError):
        releases.flip("20200101000000")
    assert releases.look().current == name


def test_pruning_never_takes_current_or_a_release_that_is_named(
    source: Path, releases: Releases, tmp_path: Path
) -> None:
    package = packed(source, tmp_path)
    all_of_them = [deploy(releases, package) for _ in range(6)]
    releases.flip(all_of_them[0])
    os.utime(releases.path(all_of_them[2]), (4e9, 4e9))
    (Path(releases.root) / "somebody's own").mkdir()
    gone = releases.prune(2, {all_of_them[1]})
    assert gone == all_of_them[2:4]
    assert releases.look().names == (*all_of_them[:2], *all_of_them[4:])
    assert not releases.look().dangles
    assert (Path(releases.root) / "somebody's own").is_dir()
    with pytest.raises(ProofError, match="is the current one"):
        releases.remove(all_of_them[0])


def test_a_clock_that_was_set_back_makes_no_release_the_oldest(releases: Releases) -> None:
    """Pruning would take the newest ones, and leave those that nobody goes back to."""
    assert releases.next_name(("20200101000000Z", "20990101000000")) == "20990101000001"
    assert releases.next_name(("99999999999999", "20990101235959Z")) == "20990102000000"
    assert releases.next_name(("99999999999999", "99991231235959"))[:2] == "20"


def test_what_a_killed_upload_has_left_is_cleared_away(source: Path, releases: Releases, tmp_path: Path) -> None:
    package = packed(source, tmp_path)
    live = deploy(releases, package)
    releases.mark("20990101000000")
    (Path(releases.root) / ".20990101000000.uploading" / "half").mkdir(parents=True)
    releases.mark("20990102000000")
    Path(releases.path("20990102000000")).mkdir()
    releases.mark(live)
    assert releases.clear_unfinished() == ["20990101000000", "20990102000000"]
    assert names(releases) == [live]


def test_a_file_that_arrives_otherwise_is_found_and_nothing_is_left(
    source: Path, releases: Releases, tmp_path: Path
) -> None:
    package = packed(source, tmp_path)
    wrong = {**package.files, "run": replace(package.files["run"], sha256="0" * 64)}
    with pytest.raises(ProofError, match="not what was sent") as caught:
        upload(releases, "20990101000000", replace(package, files=wrong))
    assert "run: another content" in caught.value.found
    assert names(releases) == []


def test_a_full_disk_while_uploading_leaves_nothing(tmp_path: Path, source: Path, small_disk: Path) -> None:
    releases = Releases(Host(Connection()), str(small_disk))
    live = deploy(releases, packed(source, tmp_path))
    (source / "big").write_bytes(os.urandom(4_000_000))
    with pytest.raises(HostError, match="could not be written") as caught:
        upload(releases, "20990101000000", packed(source, tmp_path))
    assert "No space left" in caught.value.found
    assert "df -h" in caught.value.hint
    assert names(releases) == [live]
    assert releases.look().current == live


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with disks.small_disk(folder, 2_000_000) as mounted:
        if not mounted:
            pytest.skip("this account cannot mount")
        yield folder


def test_the_ledger_survives_a_line_that_was_cut_short(releases: Releases) -> None:
    releases.mark("20990101000000")
    first, second = Entry("20260101000000", "deployed", backup="b'1\n"), Entry("20260102000000", "deployed")
    releases.write_down(first)
    with (Path(releases.root) / LEDGER).open("a") as file:
        file.write('{"release": "2026')
    releases.write_down(second)
    found = releases.ledger()
    assert (found.entries, found.damaged) == ((first, second), (2,))


def test_a_listing_reads_every_file(source: Path) -> None:
    found = read_files(Host(Connection()), source)  # type: ignore[arg-type] # a path of this machine
    assert set(found) == {"app/main.py", f"app/{ODD}", "run", "link"}
    assert found["link"].link == "app/main.py"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_everything_belongs_to_the_deploy_user(source: Path, tmp_path: Path) -> None:
    folder = Path("/tmp") / f"opsproof-nobody-{os.getpid()}"  # pytest's own folder is closed to others
    folder.mkdir()
    try:
        subprocess.run(["chown", "nobody", folder], check=True)
        releases = Releases(Host(Connection(), "nobody"), str(folder))
        name = deploy(releases, packed(source, tmp_path))
        releases.write_down(Entry(name, "deployed"))
        owners = {path.lstat().st_uid for path in folder.rglob("*")}
        assert owners == {folder.stat().st_uid}
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


def test_all_of_it_works_over_ssh(source: Path, tmp_path: Path, ssh_server: SshServer) -> None:
    folder = tmp_path / "srv"
    folder.mkdir()
    releases = Releases(Host(ssh_server.connection), str(folder))
    try:
        package = packed(source, tmp_path)
        first, second = deploy(releases, package), deploy(releases, package)
        assert releases.look().current == second
        assert (Path(releases.path(second)) / "app" / ODD).read_bytes() == b"\x00\xff"
        releases.flip(first)
        assert Path(folder, "current").resolve().name == first
        releases.write_down(Entry(first, "deployed", source="it's"))
        assert releases.ledger().entries == (Entry(first, "deployed", source="it's"),)
        assert releases.prune(1, ()) == []
        (folder / "current").unlink()
        (folder / "current").mkdir()
        with pytest.raises(ProofError, match="cannot lead to"):
            releases.flip(second)
        wrong = {**package.files, "run": replace(package.files["run"], sha256="0" * 64)}
        (folder / "current").rmdir()
        with pytest.raises(ProofError, match="not what was sent"):
            upload(releases, "20990101000000", replace(package, files=wrong))
        assert releases.look().names == (first, second)
    finally:
        close_connections()


def test_a_folder_that_comes_between_is_not_replaced(source: Path, releases: Releases, tmp_path: Path) -> None:
    """The link is made before the outage; by then somebody may have put a folder in the place of `current`."""
    name = releases.next_name(())
    upload(releases, name, packed(source, tmp_path))
    releases.prepare_flip(name)
    precious = Path(releases.folder, "current", "precious")
    precious.mkdir(parents=True)
    with pytest.raises(HostError, match="could not be made to lead"):
        releases.flip(name)
    assert precious.is_dir()


def test_one_run_at_a_time_is_at_work_on_releases(releases: Releases) -> None:
    """Two databases may have one folder of releases, and each its own lock."""
    with releases.held():
        began = time.monotonic()
        with pytest.raises(HostError, match="is another run's at the moment"), releases.held():
            pass
        assert time.monotonic() - began < 5
    with releases.held():
        pass
