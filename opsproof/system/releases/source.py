"""What a release is made from: a folder, an archive, or a git repository with a ref."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from opsproof.errors import ConfigurationError, HostError
from opsproof.system.releases.archives import is_archive, not_a_file, pack_archive
from opsproof.system.releases.package import UNTOUCHED, Package, Packer

FORMS = "a folder, an archive (.tar, .tar.gz, .zip), or a git repository with a ref: URL#REF, PATH#REF"
GIT_SECONDS = 900.0
GIT = ".git"
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://|[^/\s@:]+@[^/\s:]+:)", re.IGNORECASE)
# A password may have an @ of its own.
_USERINFO = re.compile(r"://[^\s/]*@")
_LAST_LINES = 5
# Git's hooks, and what is run by one, have these in their environment: they would lead to another repository.
_ELSEWHERE = frozenset(
    ("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_GRAFT_FILE", "GIT_INDEX_FILE",
     "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE",
     "GIT_WORK_TREE")
)  # fmt: skip


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
        is_one = is_archive(path)
    except OSError as error:
        raise HostError(
            f"{source} cannot be read: {error}",
            expected=FORMS,
            found=str(error),
            kept=UNTOUCHED,
            hint=f"ls -l {shlex.quote(source)}",
        ) from error
    if is_one:
        return pack_archive(path, folder)
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
            raise not_a_file(str(path), name)
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
    _git("-C", str(bare), "archive", "--format=tar", f"--output={archive.absolute()}", commit)
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
    inherited = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    try:
        done = subprocess.run(
            ["git", *words],  # noqa: S607 # the one on the PATH, as people have it
            # It must not wait for a password that nobody types, nor write into a repository that it only looks at.
            env={**inherited, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
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
