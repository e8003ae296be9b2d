"""Whether the files that a database names are in its filestore: each with its size and, read to its end, its SHA-1."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath

from opsproof.errors import CommandFailed, FilestoreError
from opsproof.inspection.databases.looking import UNTOUCHED, Unanswered, ask, explained, require_none
from opsproof.odoo import ATTACHMENT_COLUMN, ATTACHMENT_TABLE, CHECKLIST_FOLDER, is_attachment_name
from opsproof.system.files.agent import state_of
from opsproof.system.files.farfiles import FarRefusal, WantedFile, compare_files
from opsproof.system.files.filestore import VANISHED, Filestore
from opsproof.system.postgres.server import Connection

SIZE_COLUMN = "file_size"
UNKNOWN = -1
ROWS_AT_ONCE = 10_000
FILES_AT_ONCE = 5_000
# So many names go into one command and one query, to look at a second time.
LOOKED_AT_AGAIN, LETTERS_AT_ONCE = 500, 50_000
SECONDS = 600.0
FOLDER_LETTERS = 2

Key = bytes | str
"""A file's name; an attachment's by its SHA-1 alone."""

COLUMNS = """
SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
"""


@dataclass(frozen=True)
class Attachments:
    """What a look came to.

    Attributes:
        named: How many files the database names; 0 where nothing names any.
        files: How many the filestore has, markers of Odoo's clean-up left out; `bytes` is their size.
        orphans: Those that no row names; Odoo's clean-up has not come by, or a restore has left them.
        read: Those whose content was read and is what their name says.
        faults: What is missing or wrong of those that are named: no more than the inventory accepts.
    """

    named: int
    files: int
    bytes: int
    orphans: int
    read: int
    faults: tuple[str, ...] = ()


@dataclass
class _Seen:
    files: int = 0
    bytes: int = 0
    orphans: int = 0
    read: int = 0
    wrong: list[str] = field(default_factory=list)
    present: list[Key] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))

    def note(self, key: Key, size: int) -> None:
        """Note a file that is to be read."""
        self.present.append(key)
        self.sizes.append(size)


def check_attachments(connection: Connection, filestore: Filestore, *, deep: bool = False) -> Attachments:
    """Make sure that every file that the database names is in the filestore.

    The database is asked first and the files are listed after it, so that what comes meanwhile is no fault; what is
    missing is asked for a second time, since Odoo's clean-up may have been at work.

    Args:
        connection: To the database.
        filestore: Its files.
        deep: Whether files named by their SHA-1 are read.

    Raises:
        ProofError: More are missing, of another size or of other content than the inventory accepts.
        Unanswered: Nothing says which files there should be.
        FilestoreError: The folder is not there, or cannot be read.
        PermissionDenied: The role may not read the attachments' rows.
    """
    known, conflicts = _read_names(connection)
    if known is None:
        return _check_unnamed(filestore, deep=deep)
    named = len(known)
    seen = _Seen()
    for name, size in _list_files(filestore):
        seen.files += 1
        seen.bytes += size
        key = _key(name)
        wanted = known.pop(key, None)
        if wanted is None:
            seen.orphans += 1
        elif wanted not in (UNKNOWN, size):
            seen.wrong.append(f"{name}: {size:,} bytes, its row says {wanted:,}")
        elif deep:
            seen.note(key, size)
    gone = _read_files(filestore, seen)
    missing = _missing(connection, filestore, [*map(_name, known), *gone])
    faults = [*(f"{name}: missing" for name in missing), *seen.wrong, *conflicts]
    accepted = filestore.settings.accept_missing
    require_none(
        f"{len(faults):,} of {named:,} attachments are not in the filestore as the database names them",
        f"each of {named:,} files below {filestore.path}" + (f", but for {accepted:,}" if accepted else ""),
        sorted(faults) if len(faults) > accepted else [],
        [
            f"check {filestore.settings.origin}; to bring lost files back:"
            " pytest actions/test_restore.py --env=NAME --dry-run"
        ],
        [f"{seen.files:,} files are there, {seen.orphans:,} of them named by no row"],
    )
    return Attachments(named, seen.files, seen.bytes, seen.orphans, seen.read, tuple(sorted(faults)))


def _check_unnamed(filestore: Filestore, *, deep: bool) -> Attachments:
    """Look at files that no table names: only their own names may say what is in them."""
    seen = _Seen()
    for name, size in _list_files(filestore):
        seen.files += 1
        seen.bytes += size
        if deep and is_attachment_name(name):
            seen.note(_key(name), size)
    _read_files(filestore, seen)
    require_none(
        f"{len(seen.wrong):,} files are not what their names say",
        f"files below {filestore.path} whose SHA-1 is their name",
        sorted(seen.wrong) if len(seen.wrong) > filestore.settings.accept_missing else [],
        ["bring them back from a backup: pytest actions/test_restore.py --env=NAME --dry-run"],
    )
    if not seen.read:
        raise Unanswered(
            "Nothing says which files there should be",
            expected=f"a table public.{ATTACHMENT_TABLE}, or with --deep files that are named by their SHA-1",
            found=f"{seen.files:,} files, {seen.bytes:,} bytes, below {filestore.path}",
            kept=UNTOUCHED,
            hint="a check of your own over the fixtures db and filestore: docs/how-to/write-your-own-checks.md",
        )
    return Attachments(0, seen.files, seen.bytes, 0, seen.read, tuple(sorted(seen.wrong)))


def _read_names(connection: Connection) -> tuple[dict[Key, int] | None, list[str]]:
    """Return the size of each file that the database names, and what its rows disagree about; None without a table."""
    columns = {name for (name,) in ask(connection, COLUMNS, f"public.{ATTACHMENT_TABLE}")}
    if ATTACHMENT_COLUMN not in columns:
        return None, []
    size = f"coalesce({SIZE_COLUMN}, {UNKNOWN})::bigint" if SIZE_COLUMN in columns else str(UNKNOWN)
    # S608: only constants of ours are put in.
    query = f"SELECT {ATTACHMENT_COLUMN}, {size} FROM public.{ATTACHMENT_TABLE} WHERE {ATTACHMENT_COLUMN} <> ''"  # noqa: S608
    known: dict[Key, int] = {}
    conflicts = []
    with explained(connection), connection.transaction():
        connection.execute("SELECT set_config('statement_timeout', %s, true)", (f"{SECONDS * 1000:.0f}",))
        with connection.cursor("opsproof_attachments") as cursor:
            cursor.itersize = ROWS_AT_ONCE
            for name, wanted in cursor.execute(query.encode()):
                before = known.setdefault(_key(name), wanted)
                if before == UNKNOWN:
                    known[_key(name)] = wanted
                elif wanted not in (UNKNOWN, before):
                    conflicts.append(f"{name}: one row says {before:,} bytes, another {wanted:,}")
    return known, conflicts


def _list_files(filestore: Filestore) -> Iterator[tuple[str, int]]:
    """Yield path and size of every file, in no order; the markers of Odoo's clean-up are left out."""
    path = str(filestore.path)
    if filestore.host.run("test", "-d", path, "-a", "!", "-L", path, accept=(0, 1)).status != 0:
        filestore.describe()  # says what it is instead
    try:
        with filestore.host.pipe("find", path, "-type", "f", "-printf", "%s %P\\0") as pipe:
            held = b""
            while data := pipe.read():
                *lines, held = (held + data).split(b"\0")
                for line in lines:
                    size, _, name = line.decode(errors="surrogateescape").partition(" ")
                    if not name.startswith(f"{CHECKLIST_FOLDER}/"):
                        yield name, int(size)
            try:
                pipe.finish()
            except CommandFailed:
                # A file that vanishes while one looks is no fault; a folder that may not be read is.
                if not pipe.stderr or not all(line.endswith(VANISHED) for line in pipe.stderr.splitlines()):
                    raise
    except CommandFailed as error:
        raise _unreadable(filestore, error.found) from error


def _missing(connection: Connection, filestore: Filestore, names: list[str]) -> list[str]:
    """Return those of the names that the database still has and the filestore still lacks."""
    if not names or len(names) > LOOKED_AT_AGAIN or sum(map(len, names)) > LETTERS_AT_ONCE:
        return names
    query = f"SELECT DISTINCT {ATTACHMENT_COLUMN} FROM public.{ATTACHMENT_TABLE} WHERE {ATTACHMENT_COLUMN} = ANY(%s)"  # noqa: S608
    still = {name for (name,) in ask(connection, query, names)}
    # A path that leads out of the folder is no file of it, whatever is there.
    inside = [name for name in names if name in still and _is_inside(name)]
    outside = [name for name in names if name in still and not _is_inside(name)]
    return outside + _absent(filestore, inside)


def _absent(filestore: Filestore, names: list[str]) -> list[str]:
    if not names:
        return []
    script = 'cd -- "$0" && for one; do if [ -L "./$one" ] || [ ! -f "./$one" ]; then printf "%s\\0" "$one"; fi; done'
    try:
        found = filestore.host.run("sh", "-c", script, str(filestore.path), *names).stdout
    except CommandFailed as error:
        raise _unreadable(filestore, error.found) from error
    return [name for name in found.split("\0") if name]


def _read_files(filestore: Filestore, seen: _Seen) -> list[str]:
    """Read the files whose names are the SHA-1 of their content; return those that have vanished meanwhile."""
    wanted = (
        WantedFile(name, "", size, None)
        for key, size in zip(seen.present, seen.sizes, strict=True)
        if is_attachment_name(name := _name(key))
    )
    gone = []
    while batch := list(islice(wanted, FILES_AT_ONCE)):
        for one, state in zip(batch, _states(filestore, batch), strict=True):
            if state == "present":
                seen.read += 1
            elif state == "missing":
                gone.append(one.path)
            else:
                seen.wrong.append(f"{one.path}: its content is not what its name says")
    return gone


def _states(filestore: Filestore, batch: list[WantedFile]) -> Iterable[str]:
    folder = str(filestore.path)
    try:
        if filestore.host.is_local:
            return [state_of(folder, vars(one)) for one in batch]
        return list(compare_files(filestore.host, folder, batch))
    except (OSError, FarRefusal) as error:
        raise _unreadable(filestore, getattr(error, "found", "") or str(error)) from error


def _unreadable(filestore: Filestore, found: str) -> FilestoreError:
    return FilestoreError(
        f"The filestore {filestore.path} could not be read",
        expected="every folder and file readable",
        found=found,
        kept=UNTOUCHED,
        hint=f"run as the owner of the files: ls -ld {filestore.path}",
    )


def _is_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in PurePosixPath(name).parts and "\0" not in name


def _key(name: str) -> Key:
    """Return a name in as few bytes as can be: there may be half a million."""
    folder, _, digest = name.partition("/")
    # Not by the three letters of old versions: the way back to the name would be lost.
    return bytes.fromhex(digest) if len(folder) == FOLDER_LETTERS and is_attachment_name(name) else name


def _name(key: Key) -> str:
    if isinstance(key, str):
        return key
    digest = key.hex()
    return f"{digest[:FOLDER_LETTERS]}/{digest}"
