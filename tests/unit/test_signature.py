"""Signatures of manifests: what is authentic, what is refused, and which key is asked for."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from opsproof.archive.manifest import to_json
from opsproof.archive.names import sidecar_name
from opsproof.archive.sealing.sealpolicy import plan_seal
from opsproof.archive.sealing.signature import (
    SIGNING_VARIABLE,
    load_signer,
    load_verify_key,
    refuse_without_manifest,
    require_authentic,
    require_authentic_file,
    signature_name,
)
from opsproof.errors import ArchiveError, ConfigurationError
from opsproof.policies import Sealing
from opsproof.system.store import Store
from tests.lab.manifests import STEM, sidecar_of
from tests.lab.sealing import SigningKey, new_signing_key
from tests.lab.targets import folder, store, target

__all__ = ["folder", "store", "target"]


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return new_signing_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def sealing(signing: SigningKey) -> Sealing:
    return Sealing(signing_key_file=str(signing.private), verify_key_file=str(signing.public))


def sign(sealing: Sealing, data: bytes) -> bytes:
    signer = load_signer(sealing, {})
    assert signer is not None
    return signer.sign(data)


class TestSignature:
    NAME = sidecar_name(STEM)
    DATA = to_json(sidecar_of())

    def test_openssl_verifies_it(self, sealing: Sealing, tmp_path: Path) -> None:
        (tmp_path / "m.json").write_bytes(self.DATA)
        (tmp_path / "m.sig").write_bytes(base64.b64decode(sign(sealing, self.DATA)))
        verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(sealing.verify_key_file), "-rawin"]
        verify += ["-in", str(tmp_path / "m.json"), "-sigfile", str(tmp_path / "m.sig")]
        assert subprocess.run(verify, timeout=30, capture_output=True).returncode == 0
        (tmp_path / "m.json").write_bytes(self.DATA + b" ")
        assert subprocess.run(verify, timeout=30, capture_output=True).returncode != 0

    def test_a_signed_manifest_is_authentic(self, store: Store, sealing: Sealing, tmp_path: Path) -> None:
        store.put_small(signature_name(STEM), sign(sealing, self.DATA))
        assert require_authentic(store, self.NAME, self.DATA, sealing)
        (tmp_path / signature_name(STEM)).write_bytes(sign(sealing, self.DATA))
        assert require_authentic_file(tmp_path / self.NAME, self.DATA, sealing)
        assert not require_authentic(store, self.NAME, b"anything", Sealing())

    def test_one_that_is_not_signed_is_refused(self, store: Store, sealing: Sealing) -> None:
        with pytest.raises(ArchiveError, match="not authentic") as caught:
            require_authentic(store, self.NAME, self.DATA, sealing)
        assert caught.value.found == "no signature beside it"
        with pytest.raises(ArchiveError, match="not authentic"):
            refuse_without_manifest("x.zip", sealing)
        refuse_without_manifest("x.zip", Sealing())

    @pytest.mark.parametrize("broken", [b"", b"\n", b"!", b"AAAA", base64.b64encode(bytes(64)), bytes(range(256))])
    def test_a_signature_that_is_none_is_refused(self, store: Store, sealing: Sealing, broken: bytes) -> None:
        store.put_small(signature_name(STEM), broken)
        with pytest.raises(ArchiveError, match="not authentic"):
            require_authentic(store, self.NAME, self.DATA, sealing)

    def test_every_changed_byte_is_found(self, store: Store, sealing: Sealing) -> None:
        store.put_small(signature_name(STEM), sign(sealing, self.DATA))
        for at in range(0, len(self.DATA), 97):
            changed = bytearray(self.DATA)
            changed[at] ^= 1
            with pytest.raises(ArchiveError, match="not authentic"):
                require_authentic(store, self.NAME, bytes(changed), sealing)

    def test_another_backups_manifest_and_signature_under_this_name_are_refused(
        self, store: Store, sealing: Sealing
    ) -> None:
        """The newest could otherwise be replaced by an old one, with what was signed of that."""
        later = "acme_2024-03-06_01-02-03"
        store.put_small(signature_name(later), sign(sealing, self.DATA))
        with pytest.raises(ArchiveError, match="not authentic") as caught:
            require_authentic(store, sidecar_name(later), self.DATA, sealing)
        assert f"{STEM}.zip" in caught.value.found

    def test_a_signature_by_another_key_is_refused(self, store: Store, sealing: Sealing, tmp_path: Path) -> None:
        stranger = new_signing_key(tmp_path, "stranger")
        store.put_small(signature_name(STEM), sign(Sealing(signing_key_file=str(stranger.private)), self.DATA))
        with pytest.raises(ArchiveError, match="not authentic"):
            require_authentic(store, self.NAME, self.DATA, sealing)

    def test_a_backup_that_every_restore_would_refuse_is_not_taken(
        self, sealing: Sealing, signing: SigningKey, tmp_path: Path
    ) -> None:
        public = Sealing(verify_key_file=sealing.verify_key_file)
        with pytest.raises(ConfigurationError, match="would refuse this backup") as caught:
            plan_seal(public, environ={})
        assert caught.value.found == "none"
        stranger = new_signing_key(tmp_path, "stranger")
        with pytest.raises(ConfigurationError, match="would refuse this backup"):
            plan_seal(public, environ={SIGNING_VARIABLE: str(stranger.private)})
        plan = plan_seal(public, environ={SIGNING_VARIABLE: signing.private.read_text()})
        assert plan.secrets == (signing.secret_line,)
        assert signing.secret_line not in repr(plan)

    def test_a_key_that_is_not_there_is_told_how_to_be_made(self, tmp_path: Path) -> None:
        path = str(tmp_path / "none.pem")
        with pytest.raises(ConfigurationError, match="cannot be read") as caught:
            load_signer(Sealing(signing_key_file=path), {})
        assert caught.value.hint.startswith("openssl genpkey")
        with pytest.raises(ConfigurationError, match="cannot be read") as caught:
            load_verify_key(Sealing(verify_key_file=path))
        assert caught.value.hint.startswith("openssl pkey -in signing.pem -pubout")

    def test_a_key_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "ec.pem"
        command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path)]
        subprocess.run(command, check=True, timeout=30, capture_output=True)
        with pytest.raises(ConfigurationError, match="no private key for signatures") as caught:
            load_signer(Sealing(signing_key_file=str(path)), {})
        assert "another kind" in caught.value.found
        path.write_text("nonsense")
        with pytest.raises(ConfigurationError, match="no private key for signatures"):
            load_signer(Sealing(signing_key_file=str(path)), {})
