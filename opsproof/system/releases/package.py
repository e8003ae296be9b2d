"""A release as it is sent to a host: one plain tar on this machine, and the list of what is in it.

Whatever it is made from, nothing of it is on the host yet: a release that nobody should unpack is refused here.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from opsproof.errors import ConfigurationError, HostError

REVISION = "REVISION"
TAR = "release.tar"
UNTOUCHED = "nothing was changed"
_FILE_MODE, _PROGRAM_MODE = 0o644, 0o755
_READ_BYTES = 1 << 18
_HEAD_BYTES = 1000
# What stands in a commit for a file that Git LFS keeps elsewhere.
_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class PackedFile:
    """A file of a release: its SHA-256, or where it leads to as a symbolic link; bytes."""

    sha256: str = ""
    link: str | None = None
    bytes: int = 0


@dataclass(frozen=True)
class Package:
    """A release that is ready to be sent.

    Attributes:
        tar: All of it, on this machine.
        source: What it was made from, without a password.
        revision: What its file REVISION says.
        files: Every file by its path below the release.
        bytes: Of all files together.
    """

    tar: Path
    source: str
    revision: str
    files: Mapping[str, PackedFile] = field(repr=False)
    bytes: int


class Packer:
    """Writes a release's tar, a file at a time, and refuses what must not be unpacked.

    Args:
        folder: Where the tar goes.
        source: What it is made from, for errors.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self._path = folder / TAR
        self._source = source
        self._files: dict[str, PackedFile] = {}
        self._folders: set[str] = set()
        self._revision = ""
        # The tar that any host has reads GNU's format, whatever a name has in it.
        self._tar = tarfile.open(self._path, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape")  # noqa: SIM115

    def add_folder(self, path: str) -> None:
        """Add a folder, which may be empty."""
        name = self._checked(path)
        if name and name not in self._folders:
            self._folders.add(name)
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, _PROGRAM_MODE
            self._write(entry, None)

    def add_link(self, path: str, leads_to: str) -> None:
        """Add a symbolic link. It may lead anywhere: nothing is ever unpacked through it."""
        name = self._new(path)
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, leads_to, 0o777
        self._write(entry, None)
        self._files[name] = PackedFile(link=leads_to)

    def add_file(self, path: str, size: int, content: IO[bytes], *, is_program: bool = False) -> None:
        """Add a file of that many bytes.

        Raises:
            ConfigurationError: It is not the file, but what Git LFS has in its place.
            HostError: It is shorter by now, or there is no room for the tar.
        """
        name = self._new(path)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size, _PROGRAM_MODE if is_program else _FILE_MODE
        hashed = _Hashed(content)
        self._write(entry, hashed)
        if size < _HEAD_BYTES and hashed.head.startswith(_POINTER):
            raise ConfigurationError(
                f"{self._source} holds a pointer in the place of a file that Git LFS keeps",
                expected="the files themselves",
                found=repr(path),
                kept=UNTOUCHED,
                hint="git clone URL release && git -C release lfs pull   and then: --release=release",
            )
        self._files[name] = PackedFile(hashed.digest.hexdigest(), None, size)
        if name == REVISION:
            self._revision = hashed.head.decode(errors="replace").strip().partition("\n")[0]

    def finish(self, revision: str = "") -> Package:
        """Return the release; it gets a file REVISION where it has none.

        Args:
            revision: What it was made from; empty is told by its content.

        Raises:
            ConfigurationError: There is nothing in it.
        """
        if not self._files:
            raise ConfigurationError(
                f"{self._source} is empty",
                expected="a release with at least one file",
                found="none",
                kept=UNTOUCHED,
                hint="look whether it is the right folder, archive or ref",
            )
        if not self._revision:
            self._revision = revision or f"content-{self._digest()[:16]}"
            text = f"{self._revision}\n".encode()
            self.add_file(REVISION, len(text), io.BytesIO(text))
        self._tar.close()
        total = sum(one.bytes for one in self._files.values())
        return Package(self._path, self._source, self._revision, self._files, total)

    def _digest(self) -> str:
        listing = sorted((path, one.sha256, one.link or "") for path, one in self._files.items())
        return hashlib.sha256(repr(listing).encode("utf-8", "surrogateescape")).hexdigest()

    def _new(self, path: str) -> str:
        name = self._checked(path)
        if not name or name in self._files or name in self._folders:
            raise self._refusal(path, "each file once, below the release")
        return name

    def _checked(self, path: str) -> str:
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts or "\0" in path or "\n" in path:
            raise self._refusal(path, "relative names without '..' and line breaks")
        name = "/".join(parts)
        for number in range(1, len(parts)):
            above = "/".join(parts[:number])
            if above in self._files:
                raise self._refusal(path, f"nothing below {above!r}, which is a file or a link")
            self._folders.add(above)
        return name

    def _refusal(self, path: str, expected: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._source} holds a name that nobody should unpack",
            expected=expected,
            found=repr(path),
            kept=UNTOUCHED,
            hint="make the release anew: git archive, tar and zip all leave such names out",
        )

    def _write(self, entry: tarfile.TarInfo, content: IO[bytes] | _Hashed | None) -> None:
        try:
            self._tar.addfile(entry, content)
        except OSError as error:
            raise HostError(
                f"{self._source} cannot be packed: {error.strerror or error}",
                expected=f"to read {entry.name!r} to its end, and room in {self._path.parent}",
                found=str(error),
                kept=UNTOUCHED,
                hint=f"df -h {self._path.parent}; name another folder: TMPDIR=/path pytest ...",
            ) from error


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, content: IO[bytes]) -> None:
        self.digest = hashlib.sha256()
        self.head = b""
        self._content = content

    def read(self, size: int = _READ_BYTES) -> bytes:
        piece = self._content.read(size)
        self.digest.update(piece)
        if len(self.head) < _HEAD_BYTES:
            self.head += piece[:_HEAD_BYTES]
        return piece
