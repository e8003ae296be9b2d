"""A snapshot on its way to disk: dumped once, turned into SQL while it flows, and counted a second time beside it.

    pg_dump -> compressed spool -> unpacked again -> pg_restore -> SQL -> compressed spool
                                                                      -> counts
    psql, in the same snapshot ---------------------------------------> counts

So the dump is read to its end by pg_restore, as the bundle's own bytes unpack; the SQL by a reader that wants its
footer; and the rows that they hold are held against a second reading of the same snapshot.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from opsproof.archive.writing.conveyor import conveying
from opsproof.archive.writing.relay import Relay
from opsproof.archive.writing.spool import Spool
from opsproof.errors import CommandFailed, HostError
from opsproof.journal import Journal, Progress
from opsproof.system.hosts.pipe import Pipe
from opsproof.system.postgres.copytext import Content, CopyStream, PlainDump
from opsproof.system.postgres.dump import Clients, explain_dump_error
from opsproof.system.postgres.snapshot import Snapshot

TICK_SECONDS = 0.2
# glibc's names for mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 64 << 20
PHASE = "dump"


@dataclass(frozen=True)
class Capture:
    """A snapshot's dump and SQL, and what was counted in both and in the snapshot itself.

    `dumped` comes from the SQL, which came from the dump; `counted` from the second reading. Both map a table's label
    to its rows and fingerprint.
    """

    dump: Spool
    sql: Spool
    dumped: Mapping[str, Content]
    counted: Mapping[str, Content]
    dumped_objects: Mapping[int, Content]
    counted_objects: Mapping[int, Content]

    def close(self) -> None:
        """Give the disk space back."""
        self.dump.close()
        self.sql.close()


class Capturing:
    """Runs the three programs and their readers; leaving the block ends them, whatever happens.

    Args:
        clients: PostgreSQL's programs.
        snapshot: Open for as long as this runs.
        journal: Told about progress.
        lock_timeout: Seconds to wait for a table.
        full: Fingerprints, or only counts.
    """

    def __init__(
        self, clients: Clients, snapshot: Snapshot, journal: Journal, *, lock_timeout: float, full: bool
    ) -> None:
        self._clients = clients
        self._snapshot = snapshot
        self._journal = journal
        self._lock_timeout = lock_timeout
        self._full = full
        self._stack = ExitStack()
        self._dump_spool = Spool()
        self._sql_spool = Spool()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is not None:
            self._dump_spool.close()
            self._sql_spool.close()

    def run(self, expected_bytes: int) -> Capture:
        """Dump, derive, count; return when all three have ended well.

        Args:
            expected_bytes: How much the dump may be, for the progress report.

        Raises:
            DumpError: A program failed, or its output is not whole.
            PermissionDenied: The role may not read a table.
            LockTimeout: A table is locked by somebody else.
            ArchiveError: The temporary disk is full.
        """
        _keep_freed_memory()
        give_way()
        snapshot = self._snapshot
        text = PlainDump({table.header: table.label for table in snapshot.tables}, counting=not self._full)
        tables = CopyStream([table.label for table in snapshot.tables])
        pool = self._stack.enter_context(ThreadPoolExecutor(3, thread_name_prefix="capture"))
        dump = self._stack.enter_context(self._clients.dump(snapshot.id, self._lock_timeout))
        restore = self._stack.enter_context(self._clients.read_dump())
        work = {"pg_restore": pool.submit(self._derive_sql, restore, text)}
        work["pg_dump"] = pool.submit(self._store_dump, dump, restore)
        if self._full:
            psql = self._stack.enter_context(self._clients.print_tables(snapshot, self._lock_timeout))
            work["psql"] = pool.submit(_count_tables, psql, tables)
        self._wait(work, expected_bytes)
        if self._full:
            counted: Mapping[str, Content] = tables.contents
            dumped = {label: _with_rows(content, counted.get(label)) for label, content in text.contents.items()}
        else:
            counted = snapshot.count_rows()
            dumped = {label: Content(content.rows, None) for label, content in text.contents.items()}
        return Capture(self._dump_spool, self._sql_spool, dumped, counted, text.large_objects, snapshot.large_objects())

    def _store_dump(self, dump: Pipe, restore: Pipe) -> None:
        spool, feeding = self._dump_spool, True

        def read_on(packed: bytes) -> None:
            nonlocal feeding
            data = spool.unpack(packed)
            feeding = feeding and _feed(restore, data)

        with conveying(Relay(read_on)) as relay:
            while data := dump.read():
                relay.write(spool.pack(data))
            dump.finish()
            relay.write(spool.finish_packing())
        spool.finish_unpacking()
        restore.end_input()

    def _derive_sql(self, restore: Pipe, text: PlainDump) -> None:
        with conveying(Relay(self._sql_spool.write)) as relay:
            while data := restore.read():
                relay.write(data)
                text.feed(data)
            restore.finish()
        self._sql_spool.finish()
        text.finish()

    def _wait(self, work: Mapping[str, Future[None]], expected_bytes: int) -> None:
        started = time.monotonic()
        pending = set(work.values())
        while pending:
            done, pending = wait(pending, timeout=TICK_SECONDS, return_when=FIRST_EXCEPTION)
            if any(future.exception() for future in done):
                break
            waiting = ", ".join(name for name, future in work.items() if not future.done())
            done_bytes = self._dump_spool.size
            seconds = time.monotonic() - started
            self._journal.report(Progress(PHASE, waiting or "done", done_bytes, expected_bytes, seconds))
        # What began the failure is told first: a pg_dump that dies makes the others fail in its wake.
        for name in ("pg_dump", "psql", "pg_restore"):
            future = work.get(name)
            error = future.exception(timeout=0) if future is not None and future.done() else None
            if isinstance(error, HostError):
                raise explain_dump_error(error, self._clients.address) from error
            if error is not None:
                raise error


def _with_rows(dumped: Content, counted: Content | None) -> Content:
    """Return a table of the dump with its rows: as many as the snapshot has, if it is the same text, line by line."""
    if counted is not None and counted.fingerprint == dumped.fingerprint:
        return Content(counted.rows, dumped.fingerprint)
    return dumped


def _feed(restore: Pipe, data: bytes) -> bool:
    """Write to pg_restore; tell whether it still reads. Its own reader finds out why it does not."""
    try:
        restore.write(data)
    except CommandFailed:
        return False
    return True


def _count_tables(psql: Pipe, tables: CopyStream) -> None:
    while data := psql.read():
        tables.feed(data)
    psql.finish()
    tables.finish()


def _keep_freed_memory() -> None:
    """Let malloc keep up to 64 MiB of what is freed, instead of asking the kernel for every buffer anew.

    Half a megabyte of buffers turns over a thousand times a second here; page faults alone cost a tenth of the time.
    """
    with suppress(AttributeError):  # a C library other than glibc has no mallopt
        library = ctypes.CDLL(None)
        library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        library.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)


def give_way() -> None:
    """Make this thread, and whatever it starts from now on, batch work to the scheduler.

    Batch work does not push others aside when it wakes: the application goes first, and a dump's many programs on few
    cores switch a sixth as often, which saves a twentieth of the time.
    """
    with suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
