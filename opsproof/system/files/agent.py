"""What reads and writes a folder's files on a host; run there by its own python3, so it imports nothing of opsproof.

    send FOLDER                        every file of a folder, to stdout
    compare FOLDER                     how each file that stdin names is there: `present`, `missing` or `wrong`
    add FOLDER USER GROUP MODE         every file from stdin, each under a temporary name first

Files pass as lines of JSON (`path`, `size`, `link`), each followed by its content in pieces, which have their length in
four bytes before them; the first one without any length is the content's end. A last line `{"end": true}` says that
these were all. A line with `error` ends an answer; its `kind` says what it is about.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import stat
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

PIECE = 1 << 18
TEMPORARY = ".opsproof-adding"
# Attachments are named by their content: two or three letters of the SHA-1, and all of it.
LETTERS = frozenset("0123456789abcdef")


class Refused(Exception):
    """Something that is not done, and what it is about."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def tell(out: BinaryIO, words: dict[str, object]) -> None:
    """Write a line of JSON."""
    out.write(json.dumps(words).encode() + b"\n")


def files_in(folder: str, prefix: str) -> Iterator[tuple[str, str, str | None]]:
    """Yield path, place and link of every file below a folder."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = prefix + entry.name
        if entry.is_symlink():
            yield path, entry.path, os.readlink(entry.path)
        elif entry.is_dir():
            yield from files_in(entry.path, path + "/")
        elif entry.is_file():
            yield path, entry.path, None


def send(out: BinaryIO, folder: str) -> None:
    """Write every file of a folder."""
    for path, place, link in files_in(folder, ""):
        if link is not None:
            tell(out, {"path": path, "size": 0, "link": link})
            out.write(struct.pack(">I", 0))
            continue
        with open(place, "rb", buffering=0) as file:
            tell(out, {"path": path, "size": os.fstat(file.fileno()).st_size, "link": None})
            while True:
                piece = file.read(PIECE)
                out.write(struct.pack(">I", len(piece)))
                if not piece:
                    break
                out.write(piece)
    tell(out, {"end": True})


def place_of(root: str, path: str) -> str:
    """Return where a file is to be; no folder on the way may lead elsewhere."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or "" in parts:
        raise Refused("place", path)
    folder = root
    for part in parts[:-1]:
        folder = os.path.join(folder, part)
        if os.path.islink(folder):
            raise Refused("link", folder)
    return os.path.join(root, *parts)


def is_named_by_content(path: str) -> bool:
    """Tell whether a path is one that Odoo gives to an attachment's file."""
    folder, _, name = path.partition("/")
    return len(name) == 40 and LETTERS.issuperset(name) and len(folder) in (2, 3) and name.startswith(folder)


def state_of(root: str, head: dict[str, Any]) -> str:
    """Tell how a file is there; it is read to its end."""
    place, link = place_of(root, head["path"]), head["link"]
    try:
        found = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    if link is not None:
        is_same = stat.S_ISLNK(found.st_mode) and os.readlink(place) == link
        return "present" if is_same else "wrong"
    if not stat.S_ISREG(found.st_mode):
        return "wrong"
    sha256, named = head["sha256"], is_named_by_content(head["path"])
    if found.st_size == head["size"]:
        if not sha256 and not named:
            return "present"
        if digest_of(place, hashlib.sha256() if sha256 else hashlib.sha1()) == (sha256 or name_of(head)):  # noqa: S324
            return "present"
    # A backup may have been taken while the file was damaged: what is what its name says is not replaced by that.
    return "present" if named and digest_of(place, hashlib.sha1()) == name_of(head) else "wrong"  # noqa: S324


def name_of(head: dict[str, Any]) -> str:
    """Return the last part of a file's path."""
    return str(head["path"].rsplit("/", 1)[-1])


def digest_of(place: str, digest: Any) -> str:
    """Read a file to its end, and return its digest in hex."""
    with open(place, "rb", buffering=0) as file:
        while True:
            piece = file.read(PIECE)
            if not piece:
                return str(digest.hexdigest())
            digest.update(piece)


def compare(come: BinaryIO, out: BinaryIO, root: str) -> None:
    """Answer for every file that is named."""
    for line in come:
        out.write(state_of(root, json.loads(line.decode())).encode() + b"\n")
        # Whoever waits for a sign of life gets one: a buffer full of answers may take hours.
        out.flush()


def ids_of(user: str, group: str) -> tuple[int, int]:
    """Return the numbers of an account and a group."""
    try:
        uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise Refused("account", str(error.args[0])) from error
    return uid, gid


def make_folders(root: str, folder: str, ids: tuple[int, int], mode: int) -> None:
    """Make a folder and what is missing above it; those of the application become its own."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for one in reversed(missing):
        os.mkdir(one, 0o700)
        os.chmod(one, mode)
        if one == root or one.startswith(root + "/"):
            os.chown(one, ids[0], ids[1])


def pieces(come: BinaryIO) -> Iterator[bytes]:
    """Yield the pieces of one file."""
    while True:
        (size,) = struct.unpack(">I", come.read(4))
        if not size:
            return
        yield come.read(size)


def write(root: str, head: dict[str, Any], content: Iterator[bytes], ids: tuple[int, int], mode: int) -> int:
    """Write one file; return its bytes."""
    place = place_of(root, head["path"])
    folder = os.path.dirname(place)
    make_folders(root, folder, ids, mode)
    temporary = os.path.join(folder, "%s-%d" % (TEMPORARY, os.getpid()))  # noqa: UP031
    if os.path.lexists(temporary):
        os.unlink(temporary)
    written = 0
    try:
        if head["link"] is not None:
            for _ in content:
                pass  # a link has none, but its end
            os.symlink(head["link"], temporary)
            os.lchown(temporary, ids[0], ids[1])
        else:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                for piece in content:
                    written += file.write(piece)
                file.flush()
                os.fchmod(file.fileno(), mode & ~0o111)
                os.fchown(file.fileno(), ids[0], ids[1])
                os.fsync(file.fileno())
        os.rename(temporary, place)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    return written


def add(come: BinaryIO, out: BinaryIO, root: str, user: str, group: str, mode: str) -> None:
    """Write every file that comes."""
    ids, total = ids_of(user, group), 0
    while True:
        line = come.readline()
        if not line:
            raise Refused("cut", "the files ended too early")
        head = json.loads(line.decode())
        if "end" in head:
            break
        total += write(root, head, pieces(come), ids, int(mode, 8))
    tell(out, {"written": total})


def main(verb: str, arguments: list[str]) -> None:
    """Do what the command line says."""
    out, come = os.fdopen(1, "wb", PIECE), os.fdopen(0, "rb", PIECE)
    try:
        if verb == "send":
            send(out, *arguments)
        elif verb == "compare":
            compare(come, out, *arguments)
        else:
            add(come, out, *arguments)
    except Refused as error:
        tell(out, {"error": str(error), "kind": error.kind})
    except OSError as error:
        tell(out, {"error": str(error), "kind": "file", "strerror": error.strerror or ""})
    out.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
