"""Encrypted backups in a bucket and in a folder: fetched whole or not at all, and the key tried on the latest."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.archive.catalogue.choice import Choice
from opsproof.archive.catalogue.fetching import fetch
from opsproof.archive.catalogue.sealed import find_latest, load_opener
from opsproof.archive.manifest import Sidecar, to_json
from opsproof.archive.names import sidecar_name
from opsproof.archive.opening import open_backup
from opsproof.archive.sealing.agekeys import IDENTITY_VARIABLE
from opsproof.archive.sealing.seal import sealing_to
from opsproof.archive.sealing.sealpolicy import SealPlan, plan_seal
from opsproof.archive.writing.conveyor import conveying
from opsproof.errors import ArchiveError, ConfigurationError, OpsproofError, ProofError
from opsproof.inspection.databases.looking import Unanswered
from opsproof.inspection.keys import check_key_opens_latest
from opsproof.journal import Journal
from opsproof.policies import Policies, Sealing
from opsproof.procedures.backup.readingback import read_back
from opsproof.procedures.backup.sending import Sending
from opsproof.system.store import Store, StoredObject, open_store
from opsproof.target import DirectoryStoreSettings, S3StoreSettings, Target
from tests.lab.bucket import make_bucket, use_credentials
from tests.lab.moto_server import S3Server, moto_server
from tests.lab.sealing import AgeKey, new_age_key
from tests.lab.targets import put_object, sidecar_for, target_of

__all__ = ["moto_server"]

KEY, SECOND, OTHER = new_age_key(), new_age_key(), new_age_key()
RECIPIENTS = (KEY.recipient, SECOND.recipient)
FOLDER = pytest.mark.parametrize("target", ["folder"], indirect=True)
DATA = b"PK\x03\x04" + os.urandom((3 << 20) + 17)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(IDENTITY_VARIABLE, raising=False)


@pytest.fixture(params=["folder", "bucket"])
def target(
    request: pytest.FixtureRequest, tmp_path: Path, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Target:
    settings: DirectoryStoreSettings | S3StoreSettings = DirectoryStoreSettings(tmp_path / "backups")
    if request.param == "bucket":
        use_credentials(monkeypatch, moto_server)
        bucket = make_bucket(moto_server)
        settings = S3StoreSettings(bucket.name, moto_server.region, endpoint_url=moto_server.url)
    return target_of(settings, policies=Policies(sealing=Sealing(recipients=RECIPIENTS)))


@pytest.fixture
def store(target: Target) -> Store:
    return open_store(target.store, target.customer)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def seal(data: bytes) -> bytes:
    out = bytearray()
    with conveying(sealing_to(RECIPIENTS, out.extend)) as flow:
        flow.write(data)
    return bytes(out)


def put(store: Store, data: bytes = DATA, stored: bytes | None = None, days: float = 0) -> Sidecar:
    """Store an encrypted backup with its sidecar; `stored` is what became of it since."""
    sealed = seal(data)
    sidecar = sidecar_for(sealed, days, ending=".zip.age")
    sidecar = sidecar.model_copy(update={"sealed": "age", "recipients": RECIPIENTS, "opened_bytes": len(data)})
    put_object(store, sidecar.name, sealed if stored is None else stored)
    store.put_small(sidecar_name(sidecar.id), to_json(sidecar))
    return sidecar


def choice_of(target: Target, store: Store, sidecar: Sidecar, *, known: bool = True) -> Choice:
    """Choose it; without `known` as one that has no manifest beside it."""
    location = store.location + sidecar.name
    path = Path(location) if isinstance(target.store, DirectoryStoreSettings) else None
    beside, size = (sidecar, sidecar.bytes) if known else (None, sidecar.bytes)
    return Choice(sidecar.id, location, store, sidecar.name, path, beside, size, "")


def sealing_with(tmp_path: Path, key: AgeKey) -> Sealing:
    path = tmp_path / f"{key.recipient[-8:]}.txt"
    path.write_text(key.secret)
    return Sealing(identity_file=str(path))


def require_nothing_left(workspace: Path) -> None:
    assert not os.path.lexists(workspace)


@pytest.mark.parametrize(("key", "known"), [(KEY, True), (SECOND, False)])
def test_it_is_decrypted_into_a_private_file(
    target: Target, store: Store, workspace: Path, tmp_path: Path, key: AgeKey, known: bool
) -> None:
    sidecar = put(store)
    journal = Journal()
    path = fetch(choice_of(target, store, sidecar, known=known), workspace, journal, sealing_with(tmp_path, key))
    assert (path.read_bytes(), path.name) == (DATA, f"{sidecar.id}.zip")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert hashlib.sha256(b"".join(store.read(sidecar.name))).hexdigest() == sidecar.sha256, "what is stored stays"
    assert key.secret not in journal.redactor.clean(f"a log with {key.secret}")


@FOLDER
def test_without_the_key_nothing_is_downloaded(target: Target, store: Store, workspace: Path, tmp_path: Path) -> None:
    sidecar = put(store)
    choice = choice_of(target, store, sidecar)
    for sealing, words in ((Sealing(), "there is no key"), (sealing_with(tmp_path, OTHER), "does not open it")):
        with pytest.raises(ArchiveError, match=words) as caught:
            fetch(choice, workspace, Journal(), sealing)
        assert all(one in caught.value.expected for one in RECIPIENTS)
        assert caught.value.kept == "nothing was changed"
        assert IDENTITY_VARIABLE in caught.value.hint
        require_nothing_left(workspace)
    with pytest.raises(ArchiveError, match="does not open it"):
        fetch(choice_of(target, store, sidecar, known=False), workspace, Journal(), sealing_with(tmp_path, OTHER))
    require_nothing_left(workspace)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        fetch(choice, workspace, Journal(), Sealing(identity_file=str(tmp_path / "nowhere")))
    require_nothing_left(workspace)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "header": lambda data: flipped(data, 60),
    "magic": lambda data: flipped(data, 0),
    "middle": lambda data: flipped(data, len(data) // 2),
    "end": lambda data: flipped(data, len(data) - 1),
    "cut": lambda data: data[:-70_000],
    "longer": lambda data: data + bytes(100),
    "plaintext": lambda data: DATA + bytes(len(data) - len(DATA)),
    "empty": lambda data: b"",
}


@FOLDER
@pytest.mark.parametrize("is_local", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_by_the_stored_bytes(
    target: Target, store: Store, workspace: Path, tmp_path: Path, damage: str, is_local: bool
) -> None:
    sidecar = sidecar_for(sealed := seal(DATA), ending=".zip.age")
    sidecar = sidecar.model_copy(update={"sealed": "age", "recipients": RECIPIENTS, "opened_bytes": len(DATA)})
    put_object(store, sidecar.name, DAMAGES[damage](sealed))
    choice = choice_of(target, store, sidecar)
    choice = choice if is_local else replace(choice, path=None)
    with pytest.raises(ArchiveError, match="is not what was backed up") as caught:
        fetch(choice, workspace, Journal(), sealing_with(tmp_path, KEY))
    assert sidecar.sha256 in caught.value.expected
    require_nothing_left(workspace)


@FOLDER
@pytest.mark.parametrize("damage", ["header", "middle", "end", "cut"])
def test_damage_without_a_manifest_is_told_by_the_stream(
    target: Target, store: Store, workspace: Path, tmp_path: Path, damage: str
) -> None:
    sealed = DAMAGES[damage](seal(DATA))
    sidecar = sidecar_for(sealed, ending=".zip.age")
    put_object(store, sidecar.name, sealed)
    with pytest.raises(ArchiveError):
        fetch(choice_of(target, store, sidecar, known=False), workspace, Journal(), sealing_with(tmp_path, KEY))
    require_nothing_left(workspace)


def test_an_encrypted_file_is_not_taken_for_a_foreign_backup(tmp_path: Path) -> None:
    path = tmp_path / "x.zip.age"
    path.write_bytes(seal(DATA))
    with pytest.raises(ArchiveError, match="is encrypted") as caught:
        open_backup(path, None, tmp_path / "dump")
    assert caught.value.hint == f"age -d -i key.txt {path} > {tmp_path / 'x.zip'}"


def send(store: Store, data: bytes) -> tuple[Sending, StoredObject]:
    """Send bytes as a composition would."""
    sending = Sending(store, Journal(), "acme_2024-03-05_01-02-03", ".zip", len(data), RECIPIENTS)
    try:
        for start in range(0, len(data), 100_000):
            sending._write(data[start : start + 100_000])
        sending._finish()
        return sending, sending.commit()
    finally:
        sending.close()


def test_what_is_known_of_it_is_of_the_stored_bytes(store: Store) -> None:
    sending, stored = send(store, DATA)
    found = b"".join(store.read(stored.name))
    assert stored.name.endswith(".zip.age")
    assert (stored.bytes, stored.sha256) == (len(found), hashlib.sha256(found).hexdigest())
    assert [KEY.decrypt(found), SECOND.decrypt(found)] == [DATA, DATA]
    plan = plan_seal(Sealing(recipients=RECIPIENTS), environ={IDENTITY_VARIABLE: KEY.secret})
    for seal_plan in (plan, SealPlan(RECIPIENTS)):
        size, digest = read_back(store, stored, Journal(), sending.fingerprint, sending.plain, seal_plan)
        assert (size, digest) == (len(found), sending.fingerprint)
    with pytest.raises(ProofError, match="decrypts to something else"):
        read_back(store, stored, Journal(), sending.fingerprint, (len(DATA), "0" * 32), plan)
    with pytest.raises(ProofError, match="is not what was sent"):
        read_back(store, stored, Journal(), "0" * 32, sending.plain, plan)


def test_an_upload_that_is_given_up_leaves_nothing(store: Store) -> None:
    sending = Sending(store, Journal(), "acme_2024-03-05_01-02-03", ".zip", 1 << 30, RECIPIENTS)
    for _ in range(12):
        sending._write(bytes(1 << 20))
    sending.close()
    assert [*store.list()] == []
    assert store.leftovers() == ()
    with pytest.raises(OpsproofError):
        sending._write(bytes(1 << 20))


def test_the_key_is_tried_on_the_latest(target: Target, store: Store, tmp_path: Path) -> None:
    with pytest.raises(ProofError, match="no backup to try"):
        check_key_opens_latest(find_latest(target, store), store, load_opener(Sealing()), RECIPIENTS)
    put(store)
    newest = put(store, days=2)
    latest = find_latest(target, store)
    assert latest is not None
    assert latest.name == newest.name
    for key in (KEY, SECOND):
        opener = load_opener(sealing_with(tmp_path, key))
        assert check_key_opens_latest(latest, store, opener, RECIPIENTS) == key.recipient
    with pytest.raises(ProofError, match="does not open the latest backup") as caught:
        check_key_opens_latest(latest, store, load_opener(sealing_with(tmp_path, OTHER)), RECIPIENTS)
    assert OTHER.recipient in caught.value.found
    assert OTHER.secret not in str(caught.value)
    with pytest.raises(Unanswered, match="no private key is here to try on"):
        check_key_opens_latest(latest, store, load_opener(Sealing()), RECIPIENTS)
    with pytest.raises(ProofError, match="not encrypted as the inventory wants"):
        check_key_opens_latest(latest, store, load_opener(sealing_with(tmp_path, KEY)), (OTHER.recipient,))
    plain = replace(latest, recipients=())
    with pytest.raises(ProofError, match="not encrypted as the inventory wants") as caught:
        check_key_opens_latest(plain, store, load_opener(sealing_with(tmp_path, KEY)), RECIPIENTS)
    assert caught.value.found == "not encrypted"
    assert check_key_opens_latest(plain, store, load_opener(Sealing()), ()) == ""


@FOLDER
def test_a_manifest_that_lies_about_the_recipients_is_found_out(target: Target, store: Store, tmp_path: Path) -> None:
    """What opens it is tried, not only read."""
    out = bytearray()
    with conveying(sealing_to([OTHER.recipient], out.extend)) as flow:
        flow.write(DATA)
    sidecar = sidecar_for(bytes(out), ending=".zip.age")
    sidecar = sidecar.model_copy(update={"sealed": "age", "recipients": RECIPIENTS, "opened_bytes": len(DATA)})
    put_object(store, sidecar.name, bytes(out))
    store.put_small(sidecar_name(sidecar.id), to_json(sidecar))
    with pytest.raises(ProofError, match="does not open the latest backup"):
        check_key_opens_latest(find_latest(target, store), store, load_opener(sealing_with(tmp_path, KEY)), RECIPIENTS)
