"""Whose fault it is that a verification did not pass: the backup's, or that of whatever was to read it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg

from opsproof.archive.sealing.seal import WrongKeyError
from opsproof.errors import ArchiveError, CommandFailed, DumpError, HostError, NoRoom, OpsproofError, ProofError

# What anything says that has too little of something.
TOO_LITTLE = r"No space left on device|could not extend file|out of memory|out of shared memory|disk quota"
_TOO_LITTLE = re.compile(TOO_LITTLE, re.IGNORECASE)
# What a server or a client program says that has too little of something, may not, or was ended.
NOT_ABLE = re.compile(
    rf"{TOO_LITTLE}|could not write|could not (?:open|access|read|fsync) (?:file|block|directory)|Input/output error"
    r"|canceling statement due to|in a read-only transaction"
    r"|connection to (?:server|database)|SSL SYSCALL|SSL connection|could not (?:receive|send) data"
    r"|server closed the connection|terminating connection|database system is|no connection to"
    r"|permission denied|must be superuser|must be (?:the )?owner|must be member|too many clients|terminated by user",
    re.IGNORECASE,
)
# Whoever says nothing of the kind was never started, or was killed.
SAID = re.compile(r"(?:pg_restore|psql): ?|psql:")
# Out of memory, the machine's end, a cut connection: of the host's commands a shell makes an exit status of a signal.
ENDED = re.compile(r"was killed by signal (?:1|2|9|15)$|exit status (?:129|130|137|143|255)$")
# Insufficient resources, operator intervention, the connection, a system error.
CLASSES = ("53", "57", "58", "08")


def is_fault_of_backup(error: OpsproofError) -> bool:
    """Tell whether an error says something of the backup, and not of the store, the host, the server or the disk."""
    if isinstance(error, (WrongKeyError, NoRoom)) or not isinstance(error, (ArchiveError, DumpError, ProofError)):
        return False
    for cause in _causes(error):
        if isinstance(cause, (OSError, WrongKeyError)):
            return False
        if isinstance(cause, HostError) and not _has_found_something(cause):
            return False
        if isinstance(cause, psycopg.Error) and (cause.sqlstate is None or cause.sqlstate.startswith(CLASSES)):
            return False
    return not (isinstance(error, (DumpError, ProofError)) and NOT_ABLE.search(error.found))


def is_for_want_of_room(error: OpsproofError) -> bool:
    """Tell whether there was too little of a disk or of memory for what was to be tried."""
    return isinstance(error, NoRoom) or _TOO_LITTLE.search(error.found) is not None


def _has_found_something(error: HostError) -> bool:
    is_over = isinstance(error, CommandFailed) and not ENDED.search(error.summary)
    return is_over and SAID.search(error.found) is not None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__
