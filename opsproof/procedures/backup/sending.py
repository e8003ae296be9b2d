"""A backup on its way into the store, from the moment that its name is known.

The filestore goes first, while the database is still being dumped: the way to the store is often the longest, and what
is sent is not to be seen there before the last word is said. Where it is encrypted, that happens between composition
and hash: all that is known of what was sent is of the encrypted bytes, and plaintext is on its way nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack

import xxhash

from opsproof.archive.manifest import Manifest
from opsproof.archive.names import SEALED, sidecar_name
from opsproof.archive.sealing.agekeys import read_recipients
from opsproof.archive.sealing.seal import sealed_bytes, sealing_to
from opsproof.archive.sealing.signature import signature_name
from opsproof.archive.writing.compose import Composition, Ingredients, write_plain
from opsproof.archive.writing.relay import Relay
from opsproof.journal import Journal, Progress
from opsproof.system.files.filestore import Filestore
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
        recipients: age's public keys that it is encrypted to, which adds `.age` to its name; none: it is not.

    Raises:
        StoreError: The store refused.
        ConfigurationError: A recipient is no such key.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        wanted: str,
        ending: str,
        expected: int,
        recipients: Sequence[str] = (),
    ) -> None:
        self.recipients = tuple(dict.fromkeys(recipients))
        if self.recipients:
            # Before there is an upload: from here on nothing about them can be wrong.
            read_recipients(self.recipients)
            ending, expected = ending + SEALED, sealed_bytes(expected, len(self.recipients))
        self.backup = _free_id(store, wanted, ending)
        self._journal = journal
        self._name = self.backup + ending
        self._expected = expected
        self._started = time.monotonic()
        self._written = 0
        self._hash = xxhash.xxh3_128()
        self._plain_bytes = 0
        self._plain_hash = xxhash.xxh3_128()
        self._stack = ExitStack()
        self._upload: Upload = self._stack.enter_context(store.upload(self._name, expected))
        self._pool = self._stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="files"))
        self._relay = Relay(self._upload.write, self._upload.stop)
        self._seal = sealing_to(self.recipients, self._pass_on) if self.recipients else None
        if self._seal is not None:
            self._stack.callback(self._seal.abandon)
        # Called before the pool is waited for: its thread ends at its next write. So does the one that encrypts.
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
        self._finish()
        return manifest

    def finish_plain(self, parts: Ingredients) -> Manifest:
        """Send a database alone; return its manifest once the store has taken everything."""
        manifest = write_plain(parts, self.backup, self._write)
        self._finish()
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

    @property
    def plain(self) -> tuple[int, str]:
        """Bytes and hex XXH3-128 of what was composed, before it was encrypted."""
        return self._plain_bytes, self._plain_hash.hexdigest()

    def _finish(self) -> None:
        if self._seal is not None:
            self._seal.finish()
        self._relay.finish()

    def _write(self, data: bytes) -> None:
        if self._seal is None:
            self._pass_on(data)
        else:
            self._plain_bytes += len(data)
            self._plain_hash.update(data)
            self._seal.write(data)
        if self._files is None or self._files.done():
            self._report()

    def _pass_on(self, data: bytes) -> None:
        self._hash.update(data)
        self._relay.write(data)
        self._written += len(data)

    def _report(self) -> None:
        seconds = time.monotonic() - self._started
        self._journal.report(Progress(PHASE, self._name, self._written, self._expected, seconds))


def _free_id(store: Store, wanted: str, ending: str) -> str:
    backup, number = wanted, 1
    # A killed run may have left the signature of a manifest that it never wrote.
    names = (lambda one: one + ending, sidecar_name, signature_name)
    while any(store.exists(name(backup)) for name in names):
        number += 1
        backup = f"{wanted}_{number}"
    return backup
