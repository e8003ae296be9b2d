"""What a release is made from: a folder, an archive, or a git repository with a ref."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from opsproof.errors import ConfigurationError, HostError
from opsproof.system.releases.package import UNTOUCHED, Package, Packer

FORMS = "a folder, an archive (.tar, .tar.gz, .zip), or a git repository with a ref: URL#REF, PATH#REF"
GIT_SECONDS = 900.0
GIT = ".git"
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://|[^/\s@:]+@[^/\s:]+:)", re.IGNORECASE)
_USERINFO = re.compile(r"://[^\s/@]*@")
_LAST_LINES = 5


def pack(source: str, folder: Path) -> Package:
    """Pack a release.

    Args:
        source: A folder, an archive, or `URL#ref`; a path is relative to the current folder.
        folder: Where the tar goes, and what git fetches; the caller removes it.

    Raises:
        ConfigurationError: There is no such release, or it holds what nobody should unpack.
        HostError: It cannot be read, or there is no room.
    """
    path = Path(source).expanduser()
    if not source.strip():
        raise _no_release(source, "an empty text: a variable that is not set?")
    if not path.exists():
        repository, mark, ref = source.rpartition("#")
        if mark and repository and ref:
            return _pack_git(repository, ref, folder)
        found = "no ref behind it" if _URL.match(source) else "no such file or folder"
        raise _no_release(shown(source), found)
    try:
        if path.is_dir():
            return _pack_folder(path, folder)
        if tarfile.is_tarfile(path):
            return _pack_tar(path, folder)
        if zipfile.is_zipfile(path):
            return _pack_zip(path, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise HostError(
            f"{source} cannot be read: {error}",
            expected=FORMS,
            found=str(error),
            kept=UNTOUCHED,
            hint="get it again, or make it anew",
        ) from error
    raise _no_release(source, "a file of another kind")


def shown(source: str) -> str:
    """Return a source without the name and password that a URL may have."""
    return _USERINFO.sub("://", source)


def _pack_folder(path: Path, folder: Path) -> Package:
    packer = Packer(folder, str(path))
    for name, file in _files_below(path):
        status = file.lstat()
        if stat.S_ISLNK(status.st_mode):
            packer.add_link(name, str(file.readlink()))
        elif stat.S_ISDIR(status.st_mode):
            packer.add_folder(name)
        elif stat.S_ISREG(status.st_mode):
            with file.open("rb") as content:
                packer.add_file(name, status.st_size, content, is_program=bool(status.st_mode & 0o100))
        else:
            raise _not_a_file(str(path), name)
    return packer.finish(_revision_of(path))


def _files_below(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield every file, link and folder with its name below the folder, sorted; git's own are left out."""
    for top, folders, files in os.walk(path, onerror=_raise):
        folders[:] = sorted(one for one in folders if one != GIT)
        for name in sorted([*folders, *files]):
            if name != GIT:
                file = Path(top, name)
                yield file.relative_to(path).as_posix(), file


def _raise(error: OSError) -> None:
    # os.walk's default is to leave out in silence what it may not list.
    raise error


def _revision_of(path: Path) -> str:
    """Return the commit that a folder is checked out at; empty where it is no git repository of its own."""
    if not (path / GIT).exists():
        return ""
    try:
        commit = _git("-C", str(path), "rev-parse", "--verify", "HEAD").strip()
        return f"{commit}-dirty" if _git("-C", str(path), "status", "--porcelain").strip() else commit
    except HostError:
        return ""  # a repository without a commit, or without git


def _pack_tar(path: Path, folder: Path) -> Package:
    packer = Packer(folder, str(path))
    with tarfile.open(path) as archive:
        revision = archive.pax_headers.get("comment", "")
        members = [one for one in archive.getmembers() if one.name.strip("./")]
        top = _only_folder([one.name for one in members], path)
        for one in members:
            name = _below(one.name, top)
            if not name:
                continue
            if one.isdir():
                packer.add_folder(name)
            elif one.issym():
                packer.add_link(name, one.linkname)
            elif one.isfile() or one.islnk():
                content = archive.extractfile(one)
                if content is None:
                    raise _not_a_file(str(path), one.name)
                size = archive.getmember(one.linkname).size if one.islnk() else one.size
                packer.add_file(name, size, content, is_program=bool(one.mode & 0o100))
            else:
                raise _not_a_file(str(path), one.name)
    return packer.finish(revision)


def _pack_zip(path: Path, folder: Path) -> Package:
    packer = Packer(folder, str(path))
    with zipfile.ZipFile(path) as archive:
        comment = archive.comment.decode(errors="replace").strip()
        revision = comment if re.fullmatch(r"[0-9a-f]{40,64}", comment) else ""
        members = [one for one in archive.infolist() if one.filename.strip("./")]
        top = _only_folder([one.filename for one in members], path)
        for one in members:
            name, mode = _below(one.filename, top), one.external_attr >> 16
            if not name:
                continue
            if one.is_dir():
                packer.add_folder(name)
            elif stat.S_ISLNK(mode):
                packer.add_link(name, archive.read(one).decode(errors="surrogateescape"))
            elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                with archive.open(one) as content:
                    packer.add_file(name, one.file_size, content, is_program=bool(mode & 0o100))
            else:
                raise _not_a_file(str(path), one.filename)
    return packer.finish(revision)


def _only_folder(names: list[str], path: Path) -> str:
    """Return the folder that an archive wraps everything in, as hosters of git make them; empty where there is none.

    It counts only where it is called as the archive is, or as a project and the archive's name: a project may have one
    folder of its own.
    """
    tops = {name.removeprefix("./").partition("/")[0] for name in names}
    if len(tops) != 1 or not all("/" in name.removeprefix("./").rstrip("/") for name in names if _is_file(name, names)):
        return ""
    (top,) = tops
    stem = re.sub(r"\.(tar(\.\w+)?|tgz|tbz2?|txz|zip)$", "", path.name)
    return top if top == stem or top.endswith(f"-{stem}") else ""


def _is_file(name: str, names: list[str]) -> bool:
    return not name.endswith("/") and not any(other.startswith(f"{name}/") for other in names)


def _below(name: str, top: str) -> str:
    name = name.removeprefix("./")
    return name[len(top) :].lstrip("/") if top else name


def _pack_git(repository: str, ref: str, folder: Path) -> Package:
    if shutil.which("git") is None:
        raise HostError(
            "git not found", expected="git on this machine", found="none", kept=UNTOUCHED, hint="apt-get install git"
        )
    bare, archive = folder / "repository", folder / "fetched.tar"
    named = shown(repository)
    # `--` keeps a repository that begins with a dash from being read as an option.
    _git("clone", "--quiet", "--bare", "--", repository, str(bare), secret=repository)
    try:
        commit = _git("-C", str(bare), "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}").strip()
    except HostError as error:
        raise ConfigurationError(
            f"{named} has no commit {ref!r}",
            expected="a branch, a tag or a commit",
            found=error.found,
            kept=UNTOUCHED,
            hint=f"git ls-remote {named}   shows them",
        ) from error
    if _git("-C", str(bare), "ls-tree", "-r", commit, "--", ".gitmodules").strip():
        raise ConfigurationError(
            f"{named} has submodules, which git archive leaves out",
            expected="a repository that is whole by itself",
            found=".gitmodules",
            kept=UNTOUCHED,
            hint=f"git clone --recurse-submodules {named} release   and then: --release=release",
        )
    _git("-C", str(bare), "archive", "--format=tar", f"--output={archive}", commit)
    packer_folder = folder / "packed"
    packer_folder.mkdir()
    packer = Packer(packer_folder, f"{named}#{ref}")
    with tarfile.open(archive) as tar:
        for one in tar:
            if one.isdir():
                packer.add_folder(one.name)
            elif one.issym():
                packer.add_link(one.name, one.linkname)
            else:
                content: IO[bytes] | None = tar.extractfile(one)
                if content is not None:
                    packer.add_file(one.name, one.size, content, is_program=bool(one.mode & 0o100))
    shutil.rmtree(bare, ignore_errors=True)
    archive.unlink()
    return packer.finish(commit)


def _git(*words: str, secret: str = "") -> str:
    try:
        done = subprocess.run(
            ["git", *words],  # noqa: S607 # the one on the PATH, as people have it
            # It must not wait for a password that nobody types.
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(
            f"git {words[0]} failed", found=shown(str(error)), kept=UNTOUCHED, hint="look whether it can be reached"
        ) from error
    if done.returncode != 0:
        tail = "\n".join(done.stderr.decode(errors="replace").strip().splitlines()[-_LAST_LINES:])
        raise HostError(
            f"git {words[0] if not words[0].startswith('-') else words[2]} ended with exit status {done.returncode}",
            expected="a repository that this account may read",
            found=shown(tail),
            kept=UNTOUCHED,
            hint=f"try it: git ls-remote {shown(secret)}" if secret else "",
        )
    return done.stdout.decode(errors="surrogateescape")


def _no_release(source: str, found: str) -> ConfigurationError:
    return ConfigurationError(
        f"--release={source} is no release",
        expected=FORMS,
        found=found,
        kept=UNTOUCHED,
        hint="--release=.   --release=dist/app-1.2.tar.gz   --release=https://example.com/app.git#v1.2",
    )


def _not_a_file(source: str, name: str) -> ConfigurationError:
    return ConfigurationError(
        f"{source} holds what is neither a file nor a folder nor a link",
        expected="files, folders and symbolic links",
        found=repr(name),
        kept=UNTOUCHED,
        hint="leave devices, pipes and sockets out of the release",
    )
