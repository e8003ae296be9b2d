"""A release in each of its forms is packed as it is; what nobody should unpack is refused."""

from __future__ import annotations

import io
import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from opsproof.errors import ConfigurationError, HostError, OpsproofError
from opsproof.system.releases.layout import Releases
from tests.lab.releasing import ODD, deploy, git, names, packed, releases, source

__all__ = ["releases", "source"]


@pytest.fixture(params=["folder", "tar", "tar.gz", "zip", "git"])
def made(request: pytest.FixtureRequest, source: Path, tmp_path: Path) -> str:
    """The same release in each of its forms."""
    if request.param == "folder":
        return str(source)
    if request.param == "zip":
        path = tmp_path / "shop-1.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(source.rglob("*")):
                one = zipfile.ZipInfo.from_file(file, f"shop-1/{file.relative_to(source).as_posix()}")
                if file.is_symlink():
                    one = zipfile.ZipInfo(f"shop-1/{file.relative_to(source).as_posix()}")
                    one.external_attr = 0o120777 << 16
                    archive.writestr(one, str(file.readlink()))
                elif file.is_dir():
                    archive.writestr(one, b"")
                else:
                    archive.writestr(one, file.read_bytes())
        return str(path)
    if request.param == "git":
        git(source, "init", "-q", "-b", "main")
        git(source, "add", "-A")
        git(source, "commit", "-q", "-m", "one")
        return f"{source}#main"
    path = tmp_path / f"shop-1.{request.param}"
    with tarfile.open(path, "w:gz" if request.param == "tar.gz" else "w") as tar:
        tar.add(source, "shop-1")
    return str(path)


def test_every_form_of_a_release_arrives_as_it_is(made: str, source: Path, releases: Releases, tmp_path: Path) -> None:
    name = deploy(releases, packed(made, tmp_path))
    there = Path(releases.path(name))
    assert (there / "app" / "main.py").read_text() == "print('one')\n"
    assert (there / "app" / ODD).read_bytes() == b"\x00\xff"
    assert os.access(there / "run", os.X_OK)
    # Else browsers would take it for the file of the same name in the release of before.
    assert abs((there / "app" / "main.py").stat().st_mtime - time.time()) < 60
    assert (there / "link").readlink() == Path("app/main.py")
    assert not (there / ".git").exists()
    revision = (there / "REVISION").read_text().strip()
    assert revision == releases.revision_of(name)
    assert revision == (git(source, "rev-parse", "main") if "#" in made else revision)
    assert len(revision) >= 16
    assert names(releases) == [name]


def test_a_repository_is_told_by_its_commit_and_by_what_is_not_committed(source: Path, tmp_path: Path) -> None:
    git(source, "init", "-q", "-b", "main")
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "one")
    commit = git(source, "rev-parse", "HEAD")
    assert packed(source, tmp_path).revision == commit
    (source / "app" / "main.py").write_text("print('two')\n")
    assert packed(source, tmp_path).revision == f"{commit}-dirty"
    with pytest.raises(ConfigurationError, match="has no commit 'nowhere'"):
        packed(f"{source}#nowhere", tmp_path)


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "a/../../evil", "link/evil"])
def test_an_archive_that_reaches_out_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ConfigurationError, match="nobody should unpack"):
        packed(path, tmp_path)


@pytest.mark.parametrize(
    "release", ["", "nowhere", "https://user:hush@example.org/app.git", "https://u:s@hush@h/a", "file"]
)
def test_what_is_no_release_is_refused(release: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(OpsproofError) as caught:
        packed(str(tmp_path / release) if release == "file" else release, tmp_path)
    assert caught.value.hint
    assert "hush" not in str(caught.value)


def test_an_archive_with_a_folder_of_its_own_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "project" / "addons").mkdir(parents=True)
    (tmp_path / "project" / "addons" / "a.py").write_text("")
    with tarfile.open(tmp_path / "shop-1.tar", "w") as tar:
        tar.add(tmp_path / "project" / "addons", "addons")
    assert set(packed(tmp_path / "shop-1.tar", tmp_path).files) == {"addons/a.py", "REVISION"}


def cut_behind_a_file(data: bytes) -> bytes:
    return data[: data.index(b"later") & ~511]


def damage_a_header(data: bytes) -> bytes:
    return data.replace(b"later", b"LATER", 1)


@pytest.mark.parametrize("harm", [cut_behind_a_file, damage_a_header])
def test_a_tar_that_is_not_whole_is_not_taken_for_a_smaller_one(harm: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "shop-1.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("earlier", "later"):
            one = tarfile.TarInfo(name)
            one.size = 600
            tar.addfile(one, io.BytesIO(b"x" * 600))
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(HostError, match="cannot be read"):
        packed(path, tmp_path)


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_held_against_its_checksum(compression: str, tmp_path: Path) -> None:
    """Whatever byte is another: bytes that cannot be compressed stand in a .gz as they are."""
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    path = tmp_path / f"shop-1.tar.{compression}"
    with tarfile.open(path, f"w:{compression}") as tar:  # type: ignore[call-overload] # the three that it has
        tar.add(tmp_path / "file", "shop-1/file")
    data = bytearray(path.read_bytes())
    data[50_000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(OpsproofError):
        packed(path, tmp_path)


def test_a_zip_that_needs_a_password_and_a_link_to_nothing_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("file", "text")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        one = tarfile.TarInfo("hard")
        one.type, one.linkname = tarfile.LNKTYPE, "nowhere"
        tar.addfile(one)
    for name in ("a.zip", "a.tar"):
        with pytest.raises(HostError, match="cannot be read"):
            packed(tmp_path / name, tmp_path)


def test_a_repository_is_the_one_that_is_named_whatever_hook_of_git_s_deploys(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A post-receive hook has GIT_DIR in its environment."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("other")
    for folder in (source, other):
        git(folder, "init", "-q", "-b", "main")
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", "one")
    commit = git(source, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert packed(source, tmp_path).revision == commit
    package = packed(f"{source}#main", tmp_path)
    assert package.revision == commit
    assert "run" in package.files


def test_a_pointer_of_git_lfs_is_not_taken_for_the_file(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    (tmp_path / "project" / "logo.png").write_text(pointer)
    with pytest.raises(ConfigurationError, match="Git LFS"):
        packed(tmp_path / "project", tmp_path)
