"""The names that a bundle gives to its files: none may lead out of where it is unpacked.

Nothing here touches a disk. A name is judged by itself, and together with all others: a link that another file's path
goes through would take that file somewhere else.
"""

from __future__ import annotations

import re
from hashlib import blake2b

from opsproof.errors import ArchiveError

FILESTORE = "filestore/"
KEPT = "nothing was changed"
DISTRUST = "do not restore it; find out who can write to the store, and choose another backup"
# What Linux takes: PATH_MAX and NAME_MAX, bytes.
MOST_PATH, MOST_PART = 4095, 255
MOST_SHOWN = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class PathLedger:
    """All names of a bundle, held against each other. It keeps some 100 bytes for each, however long they are."""

    def __init__(self) -> None:
        self._names: set[bytes] = set()
        self._folders: set[bytes] = set()
        self._links: dict[str, str] = {}

    def add(self, path: str, link: str | None = None) -> None:
        """Take the next name.

        Raises:
            ArchiveError: It is not safe, was there before, or is a file and a folder at once.
        """
        require_safe(path)
        mark = _mark(path)
        if mark in self._names:
            raise _refusal(f"The bundle holds {shown(path)} twice", "every name once", "two members of one name")
        if mark in self._folders:
            raise self._crossing(path, link is not None)
        self._names.add(mark)
        if link is not None:
            _require_plain_link(path, link)
            self._links[path] = link
        folder = path
        while "/" in folder:
            folder = folder.rpartition("/")[0]
            mark = _mark(folder)
            if mark in self._folders:
                break
            if mark in self._names:
                raise self._crossing(folder, folder in self._links)
            self._folders.add(mark)

    def finish(self) -> None:
        """Look at all links, once every name is known.

        Raises:
            ArchiveError: One leads out of the filestore.
        """
        for path, link in self._links.items():
            self._follow(path, link)

    def _follow(self, path: str, link: str) -> None:
        parts = path.split("/")[:-1]
        for part in link.split("/"):
            if part in ("", "."):
                continue
            if part != "..":
                parts.append(part)
                continue
            # Behind a link, `..` is the parent of wherever that leads.
            through = [one for n in range(1, len(parts) + 1) if (one := "/".join(parts[:n])) in self._links]
            if through:
                raise _refusal(
                    f"The link {shown(path)} goes back through another link",
                    "a target that can be followed by its name alone",
                    f"{shown(link)}, by way of {shown(through[0])}",
                )
            if len(parts) <= 1:
                raise _refusal(
                    f"The link {shown(path)} climbs out of the filestore", "a target inside the filestore", shown(link)
                )
            parts.pop()

    def _crossing(self, path: str, is_link: bool) -> ArchiveError:
        if is_link:
            return _refusal(
                f"A member's path goes through the link {shown(path)}",
                "files that stand in folders of the bundle",
                f"{shown(path)} is a link, and a folder of other members",
            )
        return _refusal(
            f"{shown(path)} is a file and a folder at once", "every name once", "a member, and members below it"
        )


def require_safe(path: str) -> None:
    """Make sure that a name stays where it is unpacked, and that it can be printed.

    Raises:
        ArchiveError: It is absolute, climbs, or has a part or a character that is refused.
    """
    fault = find_fault(path, odd_letters=path.startswith(FILESTORE))
    if fault:
        raise _refusal(f"The bundle holds a name that is not safe: {shown(path)}", "plain, relative names", fault)


def find_fault(path: str, *, odd_letters: bool = False) -> str:
    """Return what makes a name unsafe to unpack; an empty text where nothing does.

    Args:
        path: The name.
        odd_letters: Backslashes and control characters are fine: an application may name its files as it likes.
    """
    parts = path.split("/")
    if "\0" in path:
        return "a NUL"
    if _CONTROL.search(path) and not odd_letters:
        return "a control character"
    if "\\" in path and not odd_letters:
        return "a backslash"
    if path.startswith("/"):
        return "an absolute name"
    if ".." in parts:
        return "a part `..`, which climbs out"
    if "" in parts or "." in parts:
        return "an empty part, or a part `.`"
    if len(path) * 4 > MOST_PART and _is_too_long(path, parts):
        return "a name longer than any file system takes"
    return ""


def shown(text: str) -> str:
    """Return a text of the bundle as it may be printed: no control characters, not endless."""
    cut = text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "..."
    return cut if cut.isprintable() else ascii(cut)


def _is_too_long(path: str, parts: list[str]) -> bool:
    return len(_encoded(path)) > MOST_PATH or any(len(_encoded(part)) > MOST_PART for part in parts)


def _require_plain_link(path: str, link: str) -> None:
    fault = ""
    if not path.startswith(FILESTORE):
        fault = "a link outside the filestore"
    elif link.startswith("/"):
        fault = "an absolute target"
    elif not link:
        fault = "no target"
    elif _CONTROL.search(link):
        fault = "a control character in its target"
    elif len(_encoded(link)) > MOST_PATH:
        fault = "a target longer than any file system takes"
    if fault:
        found = f"{fault}: {shown(link)}" if link else fault
        raise _refusal(f"The link {shown(path)} is not safe", "a relative target inside the filestore", found)


def _refusal(summary: str, expected: str, found: str) -> ArchiveError:
    return ArchiveError(summary, expected=expected, found=found, kept=KEPT, hint=DISTRUST)


def _mark(path: str) -> bytes:
    return blake2b(_encoded(path), digest_size=16).digest()


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")  # JSON's \ud800, which stands for no byte of a name
