"""What a backup will be encrypted to and signed with, looked at before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from opsproof.archive.sealing.agekeys import HOW_TO_PASS, Identities, load_identities, read_recipients
from opsproof.archive.sealing.keysource import KEPT
from opsproof.archive.sealing.signature import SIGNING_VARIABLE, Signer, load_signer
from opsproof.errors import ConfigurationError, OpsproofError
from opsproof.policies import Sealing


@dataclass(frozen=True)
class SealPlan:
    """What one backup gets.

    Attributes:
        recipients: age's public keys, each once; none: it is not encrypted.
        identities: Private keys that open it again, where there are any here: then it is proven that they do.
        signer: The key that its manifest is signed with; None: it is not.
    """

    recipients: tuple[str, ...] = ()
    identities: Identities | None = None
    signer: Signer | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log and no report may hold."""
        return (*(self.identities.secrets if self.identities else ()), *(self.signer.secrets if self.signer else ()))

    def describe(self) -> list[str]:
        """Return what will be done, a line each."""
        lines = []
        if self.recipients:
            proof = "and decrypt what is stored" if self.identities else "without a key here that opens it again"
            lines.append(f"encrypt it by age to {', '.join(self.recipients)}, {proof}")
        if self.signer is not None:
            lines.append("sign its manifest")
        return lines


def plan_seal(sealing: Sealing, *, reopened: bool = False, environ: Mapping[str, str] | None = None) -> SealPlan:
    """Return what a backup gets, once all keys have been looked at.

    Args:
        sealing: What the inventory asks for.
        reopened: Whether this machine may have to open it: a safety backup is a procedure's way back.
        environ: Holds private keys; by default the process's own.

    Raises:
        ConfigurationError: A key is none or is missing, or what is signed would be refused by every restore.
    """
    signer = load_signer(sealing, environ)
    _require_accepted(sealing, signer)
    recipients = tuple(dict.fromkeys(sealing.recipients))
    if not recipients:
        return SealPlan(signer=signer)
    read_recipients(recipients)
    try:
        identities = load_identities(sealing, environ)
    except OpsproofError:
        # A machine that only takes backups needs no private key.
        if reopened:
            raise
        identities = Identities()
    if identities.open_any(recipients):
        return SealPlan(recipients, identities, signer)
    if reopened:
        raise ConfigurationError(
            "A safety backup would be encrypted, and there is no key here to open it for the way back",
            expected=f"the private key of one of: {', '.join(recipients)}",
            found=f"those of {', '.join(identities.recipients)}" if identities.keys else "no private key",
            kept=KEPT,
            hint=HOW_TO_PASS,
        )
    return SealPlan(recipients, None, signer)


def _require_accepted(sealing: Sealing, signer: Signer | None) -> None:
    if sealing.verify_key_file and (signer is None or not signer.fits(sealing)):
        raise ConfigurationError(
            "Every restore would refuse this backup: it asks for a signature that nobody here can make",
            expected=f"the private key that belongs to {sealing.verify_key_file}",
            found="another one" if signer else "none",
            kept=KEPT,
            hint=f"export {SIGNING_VARIABLE}=/path/to/signing.pem   or the key's text\n"
            "or in the inventory: signing: {key_file: /path/to/signing.pem}",
        )
