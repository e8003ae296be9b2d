"""The signature over a manifest: Ed25519, detached, over the very bytes of the sidecar, so that openssl verifies it.

The sidecar holds the SHA-256 of the backup, which is compared whenever it is read: so the signature covers all of it.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from opsproof.archive.manifest import Sidecar, read_sidecar
from opsproof.archive.names import ENDINGS, SIDECAR
from opsproof.archive.sealing.keysource import KEPT, KeyKind, read_key_file, read_key_variable
from opsproof.errors import ArchiveError, ConfigurationError, StoreDenied, StoreError, StoreUnreachable
from opsproof.policies import Sealing
from opsproof.system.store import Store

SIGNATURE = ".manifest.sig"
SIGNING_VARIABLE = "OPSPROOF_SIGNING_KEY"
SIGNATURE_BYTES = 64
MAKE_KEY = "openssl genpkey -algorithm ed25519 -out signing.pem"
MAKE_PUBLIC_KEY = "openssl pkey -in signing.pem -pubout -out verify.pem"
SIGNING_KEY = KeyKind("key for signatures", "an Ed25519 key in PEM", f"{MAKE_KEY}   makes one", mark="PRIVATE KEY-----")
VERIFY_KEY = KeyKind("key for signatures", "an Ed25519 key in PEM", f"{MAKE_PUBLIC_KEY}   makes one")
NOT_CHECKED = "nobody checked that this tool made the backup: the inventory has no verify_key_file below `signing`"


def signature_name(backup: str) -> str:
    """Return the name of the signature of a backup's id."""
    return backup + SIGNATURE


@dataclass(frozen=True)
class Signer:
    """A private key. It is in no `repr`; `secrets` is what no log and no report may hold."""

    key: Any = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        """Return the signature as base64 and a line feed."""
        signature: bytes = self.key.sign(data)
        return base64.b64encode(signature) + b"\n"

    def fits(self, sealing: Sealing) -> bool:
        """Tell whether the inventory's public key accepts what this one signs; True where it has none."""
        public = load_verify_key(sealing)
        return public is None or is_signed(b"proof", self.sign(b"proof"), public)


def load_signer(sealing: Sealing, environ: Mapping[str, str] | None = None) -> Signer | None:
    """Return the key that manifests are signed with; None where nothing names one.

    Args:
        sealing: Names the file, which goes before the variable.
        environ: Holds the variable `OPSPROOF_SIGNING_KEY`, the key's text or a path; by default the process's own.

    Raises:
        ConfigurationError: It cannot be read, or is no Ed25519 key.
    """
    environ = os.environ if environ is None else environ
    found = read_key_variable(SIGNING_VARIABLE, environ, SIGNING_KEY)
    if found is None and sealing.signing_key_file:
        found = sealing.signing_key_file, read_key_file(sealing.signing_key_file, sealing.signing_key_file, SIGNING_KEY)
    if found is None:
        return None
    # What sets a variable may know no other way to write the end of a line.
    source, text = found[0], found[1].replace(b"\\n", b"\n")
    serialization = _cryptography("hazmat.primitives.serialization")
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except Exception:
        # Whatever the library calls it: its words may quote the key.
        raise _no_key(source, "private") from None
    if not isinstance(key, _cryptography("hazmat.primitives.asymmetric.ed25519").Ed25519PrivateKey):
        raise _no_key(source, "private", f"a key of another kind: {type(key).__name__}")
    lines = tuple(line for line in text.decode().splitlines() if line and not line.startswith("-----"))
    return Signer(key, lines)


def load_verify_key(sealing: Sealing) -> Any | None:
    """Return the public key; None where the inventory names none.

    Raises:
        ConfigurationError: It cannot be read, or is no Ed25519 key.
    """
    source = sealing.verify_key_file
    if not source:
        return None
    text = read_key_file(source, source, VERIFY_KEY)
    serialization = _cryptography("hazmat.primitives.serialization")
    try:
        key = serialization.load_pem_public_key(text)
    except Exception as error:
        raise _no_key(source, "public") from error
    if not isinstance(key, _cryptography("hazmat.primitives.asymmetric.ed25519").Ed25519PublicKey):
        raise _no_key(source, "public", f"a key of another kind: {type(key).__name__}")
    return key


def is_signed(data: bytes, signature: bytes, key: Any) -> bool:
    """Tell whether a signature, in base64, is that of these bytes."""
    try:
        raw = base64.b64decode(signature.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    if len(raw) != SIGNATURE_BYTES:
        return False
    try:
        key.verify(raw, data)
    except _cryptography("exceptions").InvalidSignature:
        return False
    return True


def require_authentic(store: Store, sidecar_name: str, data: bytes, sealing: Sealing) -> bool:
    """Make sure that a sidecar was signed by whoever has the key, and that it is the one of its name.

    Args:
        store: Where it is.
        sidecar_name: Its name there.
        data: The very bytes that were read from there.
        sealing: Names the public key.

    Returns:
        True where that was checked; False where there is no key to check it with.

    Raises:
        ArchiveError: The signature is missing or wrong, or the manifest is that of another backup.
        StoreError: The signature could not be looked at.
        ConfigurationError: The key cannot be read.
    """
    beside = sidecar_name.removesuffix(SIDECAR) + SIGNATURE

    def read() -> bytes | None:
        try:
            return store.get_small(beside)
        except (StoreDenied, StoreUnreachable):
            raise
        except StoreError:
            if store.exists(beside):
                raise
            return None

    return _require(store.location + sidecar_name, data, sealing, read)


def require_authentic_file(sidecar: Path, data: bytes, sealing: Sealing) -> bool:
    """Make sure of the same where the sidecar is a file; see `require_authentic`."""
    beside = sidecar.with_name(sidecar.name.removesuffix(SIDECAR) + SIGNATURE)

    def read() -> bytes | None:
        return beside.read_bytes() if beside.is_file() else None

    return _require(str(sidecar), data, sealing, read)


def describe_authenticity(sealing: Sealing) -> str:
    """Return what a plan says of a backup that was chosen."""
    return f"its signature was verified by {sealing.verify_key_file}" if sealing.verify_key_file else NOT_CHECKED


def refuse_without_manifest(location: str, sealing: Sealing) -> None:
    """Refuse a backup that has no manifest beside it, where the inventory wants signed ones.

    Raises:
        ArchiveError: It does.
    """
    if sealing.verify_key_file:
        raise _unauthentic(location, "no manifest beside it, which could be signed", sealing)


def _require(location: str, data: bytes, sealing: Sealing, read: Callable[[], bytes | None]) -> bool:
    key = load_verify_key(sealing)
    if key is None:
        return False
    signature = read()
    if signature is None:
        raise _unauthentic(location, "no signature beside it", sealing)
    if not is_signed(data, signature, key):
        raise _unauthentic(location, "a signature that is not of these bytes by this key", sealing)
    # Another backup's manifest with its own signature is as genuine under this name.
    _require_own(read_sidecar(data, location), location, sealing)
    return True


def _require_own(sidecar: Sidecar, location: str, sealing: Sealing) -> None:
    stem = PurePosixPath(location).name.removesuffix(SIDECAR)
    if sidecar.id != stem or sidecar.name not in {stem + ending for ending in ENDINGS}:
        raise _unauthentic(location, f"the signed manifest of {sidecar.name!r}, under another name", sealing)


def _unauthentic(location: str, found: str, sealing: Sealing) -> ArchiveError:
    return ArchiveError(
        f"{location} is not authentic: this tool did not make it, or somebody changed it",
        expected=f"a signature that {sealing.verify_key_file} verifies",
        found=found,
        kept=KEPT,
        hint="choose another with --backup=ID; without verify_key_file below `signing` it is taken as it is",
    )


def _no_key(source: str, kind: str, found: str = "something else") -> ConfigurationError:
    return ConfigurationError(
        f"There is no {kind} key for signatures in {source}",
        expected=f"an Ed25519 {kind} key in PEM, without a passphrase",
        found=found,
        kept=KEPT,
        hint=f"{MAKE_KEY}\n{MAKE_PUBLIC_KEY}",
    )


def _cryptography(module: str) -> Any:
    try:
        return importlib.import_module(f"cryptography.{module}")
    except ImportError as error:
        raise ConfigurationError(
            "Manifests cannot be signed or verified here: cryptography is not installed",
            expected="the extra `encryption` of opsproof",
            found=str(error),
            kept=KEPT,
            hint="pip install -e '.[encryption]'   in opsproof's clone",
        ) from error
