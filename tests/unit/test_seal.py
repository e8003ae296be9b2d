"""Encryption in the stream, and its keys: what opens, what is refused, and what is never shown."""

from __future__ import annotations

import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsproof.archive.manifest import is_backup_of
from opsproof.archive.names import stem_of
from opsproof.archive.sealing.agekeys import IDENTITY_VARIABLE, Identities, load_identities, read_recipients
from opsproof.archive.sealing.seal import (
    MAGIC,
    WrongKeyError,
    open_beginning,
    require_key,
    sealed_bytes,
    sealing_to,
    unsealing,
)
from opsproof.archive.sealing.sealpolicy import plan_seal
from opsproof.archive.writing.conveyor import conveying
from opsproof.archive.writing.restoretext import restore_text
from opsproof.errors import ArchiveError, ConfigurationError, StoreError
from opsproof.policies import Sealing
from tests.lab.manifests import STEM, manifest_of
from tests.lab.sealing import AgeKey, new_age_key

KEY, SECOND, OTHER = new_age_key(), new_age_key(), new_age_key()
SIZES = [0, 1, 65_535, 65_536, 65_537, 1_000_000]


def identities_of(*keys: AgeKey) -> Identities:
    return load_identities(Sealing(), {IDENTITY_VARIABLE: "\n".join(key.secret for key in keys)})


def seal(data: bytes, *keys: AgeKey, piece: int = 100_000) -> bytes:
    out = bytearray()
    with conveying(sealing_to([key.recipient for key in keys or (KEY,)], out.extend)) as flow:
        for start in range(0, len(data), piece):
            flow.write(data[start : start + piece])
    return bytes(out)


def unseal(data: bytes, *keys: AgeKey) -> bytes:
    out = bytearray()
    with conveying(unsealing(identities_of(*keys), out.extend, "s3://b/x.zip.age", (KEY.recipient,))) as flow:
        for start in range(0, len(data), 70_000):
            flow.write(data[start : start + 70_000])
    return bytes(out)


class TestStream:
    @pytest.mark.parametrize("size", SIZES)
    def test_what_is_encrypted_is_opened_by_each_recipient(self, size: int) -> None:
        data = os.urandom(size)
        sealed = seal(data, KEY, SECOND)
        assert sealed.startswith(MAGIC)
        assert len(data) < len(sealed) <= sealed_bytes(size, 2)
        assert [unseal(sealed, KEY), unseal(sealed, OTHER, SECOND), KEY.decrypt(sealed)] == [data] * 3

    def test_another_key_opens_nothing_and_is_told_whose_it_takes(self) -> None:
        with pytest.raises(WrongKeyError, match="does not open it") as caught:
            unseal(seal(b"data"), OTHER)
        assert KEY.recipient in caught.value.expected
        assert OTHER.recipient in caught.value.found
        assert IDENTITY_VARIABLE in caught.value.hint
        assert OTHER.secret not in str(caught.value)

    @pytest.mark.parametrize("cut", [1, 16, 17, 65_552, 200_000, 299_000])
    def test_a_cut_is_found(self, cut: int) -> None:
        sealed = seal(os.urandom(300_000))
        with pytest.raises(ArchiveError, match="cut short"):
            unseal(sealed[:-cut], KEY)

    def test_a_cut_between_two_pieces_is_found(self) -> None:
        sealed = seal(os.urandom(3 * 65_536))
        with pytest.raises(ArchiveError, match="cut short"):
            unseal(sealed[: -(65_536 + 16)], KEY)

    @pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.999])
    def test_a_flipped_bit_is_found(self, at: float) -> None:
        sealed = bytearray(seal(os.urandom(200_000)))
        sealed[int(at * len(sealed))] ^= 1
        with pytest.raises(ArchiveError):
            unseal(bytes(sealed), KEY)

    def test_what_is_no_age_is_said_to_be_none(self) -> None:
        with pytest.raises(ArchiveError, match="not encrypted by age"):
            unseal(b"PK\x03\x04" * 100, KEY)

    def test_an_error_of_the_receiver_is_raised_as_it_is(self) -> None:
        def full(data: bytes) -> None:
            raise StoreError("the store is full")

        with pytest.raises(StoreError, match="the store is full"), conveying(sealing_to([KEY.recipient], full)) as flow:
            for _ in range(200):
                flow.write(bytes(1 << 18))

    def test_whoever_gives_up_leaves_no_thread_behind(self) -> None:
        before = threading.active_count()
        flow = sealing_to([KEY.recipient], lambda data: None)
        flow.write(bytes(1 << 20))
        flow.abandon()
        with pytest.raises(ArchiveError):
            flow.write(bytes(1 << 20))
        assert threading.active_count() == before

    def test_a_slow_receiver_holds_the_writer_back(self) -> None:
        """64 MiB through a receiver that waits: what is under way stays far below that."""
        piece, taken = bytes(1 << 20), 0

        def slowly(data: bytes) -> None:
            nonlocal taken
            taken += len(data)
            time.sleep(0.0005)

        tracemalloc.start()
        try:
            with conveying(sealing_to([KEY.recipient], slowly)) as flow:
                for _ in range(64):
                    flow.write(piece[:-1] + b"x")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert taken > 64 << 20
        assert peak < 24 << 20

    def test_the_beginning_alone_tells_whether_a_key_opens_it(self) -> None:
        sealed, read = seal(b"PK\x03\x04" + os.urandom(20 << 20)), 0

        def chunks() -> Iterator[bytes]:
            nonlocal read
            for start in range(0, len(sealed), 1 << 20):
                read += 1
                yield sealed[start : start + (1 << 20)]

        assert open_beginning(identities_of(KEY), chunks(), "x").startswith(b"PK\x03\x04")
        assert read == 1
        with pytest.raises(WrongKeyError):
            open_beginning(identities_of(OTHER), chunks(), "x")


class TestKeys:
    def test_a_file_and_the_variable_both_count(self, tmp_path: Path) -> None:
        path = tmp_path / "key.txt"
        path.write_text(f"# public key: {KEY.recipient}\n{KEY.secret}\n\n{SECOND.secret}\n")
        sealing = Sealing(identity_file=str(path))
        assert load_identities(sealing, {}).recipients == (KEY.recipient, SECOND.recipient)
        both = load_identities(sealing, {IDENTITY_VARIABLE: OTHER.secret})
        assert set(both.recipients) == {KEY.recipient, SECOND.recipient, OTHER.recipient}
        assert load_identities(Sealing(), {IDENTITY_VARIABLE: str(path)}).recipients == (
            KEY.recipient,
            SECOND.recipient,
        )
        assert load_identities(Sealing(), {}) == Identities()
        elsewhere = Sealing(identity_file=str(tmp_path / "not here"))
        assert load_identities(elsewhere, {IDENTITY_VARIABLE: OTHER.secret}).recipients == (OTHER.recipient,)
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_identities(elsewhere, {})

    def test_no_repr_and_no_error_shows_a_key(self, tmp_path: Path) -> None:
        assert KEY.secret not in repr(identities_of(KEY))
        half = KEY.secret[:-1] + "0"
        with pytest.raises(ConfigurationError, match="no private key") as caught:
            load_identities(Sealing(), {IDENTITY_VARIABLE: half})
        assert KEY.secret[:30] not in str(caught.value)
        assert caught.value.__cause__ is None
        with pytest.raises(ConfigurationError) as caught:
            load_identities(Sealing(), {IDENTITY_VARIABLE: KEY.secret[20:]})
        assert KEY.secret[20:] not in str(caught.value)
        with pytest.raises(ConfigurationError, match="private key, which belongs") as caught:
            read_recipients([KEY.secret])
        assert KEY.secret not in str(caught.value)

    def test_a_key_with_a_passphrase_is_said_to_be_one(self, tmp_path: Path) -> None:
        path = tmp_path / "key.age"
        path.write_bytes(seal(b"x"))
        with pytest.raises(ConfigurationError, match="no private key") as caught:
            load_identities(Sealing(identity_file=str(path)), {})
        assert caught.value.found == "one that a passphrase protects"

    def test_a_key_is_asked_for_before_anything_is_read(self) -> None:
        with pytest.raises(WrongKeyError, match="there is no key"):
            require_key(Identities(), "x", (KEY.recipient,))
        with pytest.raises(WrongKeyError, match="does not open it"):
            require_key(identities_of(OTHER), "x", (KEY.recipient,))
        require_key(identities_of(OTHER, KEY), "x", (KEY.recipient,))
        require_key(identities_of(OTHER), "x", ())

    def test_a_safety_backup_is_not_encrypted_to_others_alone(self) -> None:
        sealing = Sealing(recipients=(KEY.recipient, KEY.recipient, SECOND.recipient))
        plan = plan_seal(sealing, environ={})
        assert (plan.recipients, plan.identities) == ((KEY.recipient, SECOND.recipient), None)
        with pytest.raises(ConfigurationError, match="the way back"):
            plan_seal(sealing, reopened=True, environ={IDENTITY_VARIABLE: OTHER.secret})
        mine = plan_seal(sealing, reopened=True, environ={IDENTITY_VARIABLE: SECOND.secret})
        assert mine.identities is not None
        assert SECOND.secret in mine.secrets
        with pytest.raises(ConfigurationError, match="no public key of age"):
            plan_seal(Sealing(recipients=("age1nonsense",)), environ={})


class TestNames:
    def test_an_encrypted_backup_is_one_of_its_target(self) -> None:
        assert is_backup_of("acme_2024-03-05_01-02-03_2.zip.age", "acme", "prod")
        assert is_backup_of("backup_prod_20240305_010203.sql.age", "acme", "prod")
        assert not is_backup_of("acme_2024-03-05_01-02-03.zip.gpg", "acme", "prod")
        assert {stem_of(STEM + ending) for ending in (".zip", ".sql", ".zip.age", ".sql.age", "")} == {STEM}

    def test_the_text_in_an_encrypted_bundle_says_how_it_was_opened(self) -> None:
        text = restore_text(manifest_of(), sealed=True)
        assert f"    age -d -i key.txt {STEM}.zip.age > {STEM}.zip\n" in text
        assert "age -d" not in restore_text(manifest_of())
