"""Encryption in the stream, by age: bytes go in, what they are encrypted or decrypted to comes out, nothing is kept.

age encrypts pieces of 64 KiB, each with a tag of its own, and the last one is marked: a flipped bit and a cut are found
where they are. The library pulls and pushes by itself, so it runs in a thread between two callers who only push.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from opsproof.archive.sealing.agekeys import (
    HOW_TO_PASS,
    IDENTITY_VARIABLE,
    Identities,
    load_pyrage,
    read_recipients,
)
from opsproof.archive.sealing.keysource import KEPT
from opsproof.archive.writing.conveyor import PIECE_BYTES, conveying
from opsproof.archive.writing.flow import Flow
from opsproof.errors import ArchiveError

MAGIC = b"age-encryption.org/v1\n"
"""What every encrypted file begins with."""

CHUNK_BYTES, TAG_BYTES = 1 << 16, 16
HEADER_BYTES, RECIPIENT_BYTES = 512, 128
# A header of a thousand recipients, and more than one piece.
BEGINNING_BYTES = 1 << 18
NO_MATCH = "No matching keys found"


class WrongKeyError(ArchiveError):
    """None of the private keys opens it."""


def sealing_to(recipients: Sequence[str], receiver: Callable[[bytes], object]) -> Flow:
    """Begin to encrypt.

    Args:
        recipients: age's public keys, any of which opens it.
        receiver: Takes the encrypted bytes in order.

    Raises:
        ConfigurationError: One is no such key, or the library is not installed.
    """
    pyrage, keys = load_pyrage(), list(read_recipients(recipients))
    return Flow(lambda source, sink: pyrage.encrypt_io(source, sink, keys), receiver, _cannot_be_encrypted)


def seal(data: bytes, recipients: Sequence[str]) -> bytes:
    """Return something small, encrypted.

    Raises:
        ConfigurationError: A recipient is no such key, or the library is not installed.
    """
    sealed = bytearray()
    with conveying(sealing_to(recipients, sealed.extend)) as flow:
        flow.write(data)
    return bytes(sealed)


def unsealing(
    identities: Identities,
    receiver: Callable[[bytes], object],
    location: str,
    recipients: Sequence[str] = (),
    gather: int = PIECE_BYTES,
) -> Flow:
    """Begin to decrypt.

    Args:
        identities: Any of them may open it.
        receiver: Takes the decrypted bytes in order; each is authentic, but only `finish` tells that they are all.
        location: What it is, for errors.
        recipients: Whom it is encrypted to, as far as that is known.
        gather: Bytes that the receiver gets at once, at least.

    Raises:
        ConfigurationError: The library is not installed.
    """
    pyrage, keys = load_pyrage(), list(identities.keys)

    def explain(error: Exception) -> ArchiveError:
        if NO_MATCH in str(error):
            return wrong_key(location, identities, recipients)
        return _cannot_be_decrypted(location, error)

    return Flow(lambda source, sink: pyrage.decrypt_io(source, sink, keys), receiver, explain, gather)


def unseal(data: bytes, identities: Identities, location: str) -> bytes:
    """Return something small, decrypted.

    Args:
        data: All of it.
        identities: Any of them may open it.
        location: What it is, for errors.

    Raises:
        ArchiveError: There is no key, none of them opens it, or it was damaged.
        ConfigurationError: The library is not installed.
    """
    require_key(identities, location, ())
    opened = bytearray()
    with conveying(unsealing(identities, opened.extend, location)) as flow:
        flow.write(data)
    return bytes(opened)


def open_beginning(
    identities: Identities, chunks: Iterable[bytes], location: str, recipients: Sequence[str] = ()
) -> bytes:
    """Return the first decrypted bytes of a file, reading no more of it than its header and its first pieces.

    Raises:
        ArchiveError: It is not encrypted, no key opens it, or its beginning is damaged.
    """
    opened = bytearray()

    class Enough(Exception):
        """It ends the reading."""

    def take(data: bytes) -> None:
        opened.extend(data)
        raise Enough

    given = 0
    try:
        with conveying(unsealing(identities, take, location, recipients, gather=1)) as flow:
            for chunk in chunks:
                flow.write(chunk)
                given += len(chunk)
                if given >= BEGINNING_BYTES:
                    break
    except Enough:
        pass
    return bytes(opened)


def sealed_bytes(plain: int, recipients: int) -> int:
    """Return how many bytes so many are at most when they are encrypted."""
    return plain + (plain // CHUNK_BYTES + 1) * TAG_BYTES + HEADER_BYTES + recipients * RECIPIENT_BYTES


def require_key(identities: Identities, location: str, recipients: Sequence[str]) -> None:
    """Make sure, before anything is read, that there is a key, and one of those that it is encrypted to.

    Args:
        identities: What there is.
        location: What is to be opened.
        recipients: Whom it is encrypted to; none where nothing says so.

    Raises:
        ArchiveError: There is none.
    """
    if not identities.keys:
        raise WrongKeyError(
            f"{location} is encrypted, and there is no key to open it",
            expected=_one_of(recipients),
            found=f"neither a file in the inventory nor the variable {IDENTITY_VARIABLE}",
            kept=KEPT,
            hint=HOW_TO_PASS,
        )
    if recipients and not identities.open_any(recipients):
        raise wrong_key(location, identities, recipients)


def wrong_key(location: str, identities: Identities, recipients: Sequence[str]) -> WrongKeyError:
    """Return the error of keys that do not open it."""
    return WrongKeyError(
        f"{location} is encrypted to others: the key that is here does not open it",
        expected=_one_of(recipients),
        found=f"{', '.join(identities.recipients)}, from {', '.join(identities.sources)}",
        kept=KEPT,
        hint=HOW_TO_PASS,
    )


def _one_of(recipients: Sequence[str]) -> str:
    return f"the private key of one of: {', '.join(recipients)}" if recipients else "the private key of a recipient"


def _cannot_be_encrypted(error: Exception) -> ArchiveError:
    return ArchiveError(
        "The backup cannot be encrypted",
        expected="a stream of age",
        found=str(error),
        kept="no backup was written",
        hint="pip install --force-reinstall 'opsproof[encryption]'",
    )


def _cannot_be_decrypted(location: str, error: Exception) -> ArchiveError:
    return ArchiveError(
        f"{location} cannot be decrypted: it is damaged, cut short, or not encrypted by age",
        expected="a whole stream of age, each piece with its tag",
        found=str(error),
        kept=KEPT,
        hint="run it again; if it fails twice, the stored copy is damaged: choose another with --backup=ID",
    )
