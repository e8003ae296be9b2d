"""Whose fault it is that a verification did not pass: a backup that is blamed for another's counts for nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from opsproof.errors import DumpError, NoRoom, ProofError
from opsproof.inspection.finding import ROOM, Finding, require
from opsproof.procedures.blame import is_fault_of_backup, is_for_want_of_room
from opsproof.system.hosts.pipe import command_failed


def failed_with(status: int, *stderr: str) -> DumpError:
    error = DumpError("pg_restore failed: it could not load the dump", found="\n".join(stderr))
    error.__cause__ = command_failed("pg_restore", status, "\n".join(stderr))
    return error


@pytest.mark.parametrize(
    "said",
    [
        'pg_restore: error: could not execute query: ERROR:  invalid input syntax for type integer: "x"',
        "pg_restore: error: could not read from input file: end of file",
        'psql:database:12: ERROR:  syntax error at or near "x"',
    ],
)
def test_what_is_wrong_in_the_dump_is_its_fault(said: str) -> None:
    assert is_fault_of_backup(failed_with(1, said))


@pytest.mark.parametrize(
    "said",
    [
        "pg_restore: error: error returned by PQputCopyData: SSL SYSCALL error: EOF detected",
        "pg_restore: error: could not execute query: SSL connection has been closed unexpectedly",
        "pg_restore: error: could not execute query: could not receive data from server: Connection timed out",
        "pg_restore: error: error returned by PQputCopyData: could not send data to server: Broken pipe",
        'pg_restore: error: connection to database "shop" failed: FATAL:  sorry',
        "pg_restore: error: could not execute query: ERROR:  canceling statement due to user request",
        "pg_restore: error: could not execute query: ERROR:  cannot execute CREATE TABLE in a read-only transaction",
        'pg_restore: error: could not execute query: ERROR:  could not read block 3 in file "base/1/2"',
        'pg_restore: error: could not execute query: ERROR:  could not extend file "base/1/2": No space left on device',
    ],
)
def test_what_happened_to_the_server_or_on_the_way_is_not(said: str) -> None:
    assert not is_fault_of_backup(failed_with(1, said))


@pytest.mark.parametrize("status", [-9, -15, 137, 143, 255])
def test_a_program_that_was_ended_has_found_nothing_whatever_it_warned_of(status: int) -> None:
    assert not is_fault_of_backup(failed_with(status, "pg_restore: warning: errors ignored on restore: 0"))


SMALL = Finding(ROOM, "9 bytes free", "1 byte free", "df", blocks=True)
OLD = Finding("server", "PostgreSQL 18", "PostgreSQL 15", "a newer one", blocks=True)


def test_a_disk_that_is_too_small_says_nothing_of_a_backup() -> None:
    with pytest.raises(NoRoom) as caught:
        require([SMALL, replace(OLD, blocks=False), SMALL])
    assert not is_fault_of_backup(caught.value)
    assert is_for_want_of_room(caught.value)


def test_what_else_is_in_the_way_says_it_whatever_room_there_is() -> None:
    with pytest.raises(ProofError) as caught:
        require([SMALL, OLD])
    assert is_fault_of_backup(caught.value)
    assert not is_for_want_of_room(caught.value)


def test_an_application_that_finds_no_room_has_not_judged_the_copy() -> None:
    error = ProofError("The application ended by itself", found="OSError: [Errno 28] No space left on device")
    assert is_for_want_of_room(error)
    assert not is_for_want_of_room(ProofError("The application ended by itself", found="KeyError: 'ir.ui.view'"))
