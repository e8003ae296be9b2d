"""A backup on its way into the store, from the moment that its name is known.

The filestore goes first, while the database is still being dumped: the way to the store is often the longest, and what
is sent is not to be seen there before the last word is said.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack

import xxhash

from opsproof.archive.catalogue import sidecar_name
from opsproof.archive.compose import Composition, Ingredients, write_plain
from opsproof.archive.manifest import Manifest
from opsproof.archive.relay import Relay
from opsproof.journal import Journal, Progress
from opsproof.system.filestore import Filestore
from opsproof.system.store import Store, StoredObject, Upload

TICK_SECONDS = 0.2
PHASE = "upload"


class Sending:
    """One upload, and the composition of what it sends.

    Args:
        store: Where to.
        journal: Told about progress.
        wanted: The backup's id; one that is taken gets a suffix.
        ending: `.zip` or `.sql`.
        expected: Bytes, at most.

    Raises:
        StoreError: The store refused.
    """

    def __init__(self, store: Store, journal: Journal, wanted: str, ending: str, expected: int) -> None:
        self.backup = _free_id(store, wanted, ending)
        self._journal = journal
        self._name = self.backup + ending
        self._expected = expected
        self._started = time.monotonic()
        self._written = 0
        self._hash = xxhash.xxh3_128()
        self._stack = ExitStack()
        self._upload: Upload = self._stack.enter_context(store.upload(self._name, expected))
        self._pool = self._stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="files"))
        self._relay = Relay(self._upload.write, self._upload.stop)
        # Called before the pool is waited for: its thread ends at its next write.
        self._stack.callback(self._relay.abandon)
        self._composition = Composition(self.backup, self._write)
        self._stack.callback(self._composition.close)
        self._files: Future[None] | None = None

    def begin_files(self, filestore: Filestore, attachments: Collection[str] | None) -> None:
        """Begin to send the frozen files; `finish_bundle` waits for them, and raises what went wrong."""
        self._files = self._pool.submit(self._composition.add_files, filestore, attachments)

    def finish_bundle(self, parts: Ingredients) -> Manifest:
        """Send the rest of a bundle; return its manifest once the store has taken everything."""
        while self._files is not None and not wait([self._files], timeout=TICK_SECONDS).done:
            self._report()
        if self._files is not None:
            self._files.result()
        manifest = self._composition.finish(parts)
        self._relay.finish()
        return manifest

    def finish_plain(self, parts: Ingredients) -> Manifest:
        """Send a database alone; return its manifest once the store has taken everything."""
        manifest = write_plain(parts, self.backup, self._write)
        self._relay.finish()
        return manifest

    @property
    def composition(self) -> Composition:
        """What was put together so far."""
        return self._composition

    def commit(self) -> StoredObject:
        """Say the last word."""
        return self._upload.commit()

    def close(self) -> None:
        """End whatever still goes on; an upload without its last word is aborted."""
        self._stack.close()

    @property
    def fingerprint(self) -> str:
        """Hex XXH3-128 of all that was sent, computed before the store saw it."""
        return self._hash.hexdigest()

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._relay.write(data)
        self._written += len(data)
        if self._files is None or self._files.done():
            self._report()

    def _report(self) -> None:
        seconds = time.monotonic() - self._started
        self._journal.report(Progress(PHASE, self._name, self._written, self._expected, seconds))


def _free_id(store: Store, wanted: str, ending: str) -> str:
    backup, number = wanted, 1
    while store.exists(backup + ending) or store.exists(sidecar_name(backup)):
        number += 1
        backup = f"{wanted}_{number}"
    return backup
