"""A release that comes as an archive: a tar, in whatever compression, or a zip."""

from __future__ import annotations

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opsproof.errors import ConfigurationError, HostError
from opsproof.system.releases.package import UNTOUCHED, Package, Packer

# A tar ends with two blocks of zeros. One that was cut short, or is damaged, ends where its next name should be, which
# Python takes for an end as well.
_BLOCK = 512
_READ_BYTES = 1 << 20
# What Python raises for an archive that is cut short, damaged, encrypted, or compressed as it does not know.
_FAULTS = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, KeyError, RuntimeError,
    UnicodeError,
)  # fmt: skip


def is_archive(path: Path) -> bool:
    """Tell whether a file is one."""
    return tarfile.is_tarfile(path) or zipfile.is_zipfile(path)


def pack_archive(path: Path, folder: Path) -> Package:
    """Pack a release that is an archive.

    Args:
        path: The archive; it is read to its end.
        folder: Where the packed release goes.

    Raises:
        ConfigurationError: It holds what nobody should unpack.
        HostError: It cannot be read, or is not whole.
    """
    with _explained(path):
        return _pack_tar(path, folder) if tarfile.is_tarfile(path) else _pack_zip(path, folder)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        raise HostError(
            f"{path} cannot be read: {error}",
            expected="a tar or zip that is whole, and not encrypted",
            found=f"{type(error).__name__}: {error}",
            kept=UNTOUCHED,
            hint="get it again, or make it anew",
        ) from error


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
                    raise not_a_file(str(path), one.name)
                size = archive.getmember(one.linkname).size if one.islnk() else one.size
                packer.add_file(name, size, content, is_program=bool(one.mode & 0o100))
            else:
                raise not_a_file(str(path), one.name)
        _require_end(archive)
    return packer.finish(revision)


def _require_end(archive: tarfile.TarFile) -> None:
    """Read what is behind the last file: a compressed archive is held against its checksum only at its very end."""
    stream = archive.fileobj
    if stream is None:
        return
    stream.seek(archive.offset)
    end = stream.read(_BLOCK)
    if len(end) < _BLOCK or any(end):
        raise tarfile.ReadError(f"it ends, or is damaged, after {len(archive.getmembers()):,} members")
    while stream.read(_READ_BYTES):
        pass


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
                raise not_a_file(str(path), one.filename)
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


def not_a_file(source: str, name: str) -> ConfigurationError:
    """Return the error for a device, a pipe or a socket in a release."""
    return ConfigurationError(
        f"{source} holds what is neither a file nor a folder nor a link",
        expected="files, folders and symbolic links",
        found=repr(name),
        kept=UNTOUCHED,
        hint="leave devices, pipes and sockets out of the release",
    )
