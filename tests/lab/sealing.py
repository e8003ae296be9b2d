"""Keys of a test's own, for encryption and for signatures."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsproof.archive.sealing.agekeys import load_pyrage


@dataclass(frozen=True)
class AgeKey:
    """A key pair of age."""

    recipient: str
    secret: str

    def decrypt(self, data: bytes) -> bytes:
        """Return what the library itself, without any of our code, decrypts it to."""
        pyrage: Any = load_pyrage()
        opened: bytes = pyrage.decrypt(data, [pyrage.x25519.Identity.from_str(self.secret)])
        return opened


@dataclass(frozen=True)
class SigningKey:
    """Files of an Ed25519 key pair, made by openssl."""

    private: Path
    public: Path

    @property
    def secret_line(self) -> str:
        """The line of the private one that nobody may read."""
        return self.private.read_text().splitlines()[1]


def new_age_key() -> AgeKey:
    """Make a key pair."""
    identity = load_pyrage().x25519.Identity.generate()
    return AgeKey(str(identity.to_public()), str(identity))


def new_signing_key(folder: Path, name: str = "signing") -> SigningKey:
    """Make a key pair as docs/how-to/encryption.md says."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(private)], check=True, timeout=30)
    subprocess.run(["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)], check=True, timeout=30)
    return SigningKey(private, public)
