"""A verification of real backups that were damaged: whose fault it is, what is recorded, and what is chosen then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from psycopg import sql

from opsproof.archive.catalogue.choosing import choose_backup
from opsproof.archive.manifest import Manifest, to_json
from opsproof.archive.sealing.agekeys import load_pyrage
from opsproof.errors import (
    ConfigurationError,
    HostError,
    OpsproofError,
    ProofError,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)
from opsproof.inventory.loading import load_environment
from opsproof.journal import Journal
from opsproof.policies import Sealing
from opsproof.procedures.verify.procedure import UNTOLD, Verify, require_passed
from opsproof.system.postgres.databases import scratch_name
from opsproof.system.store import StoredObject, open_store
from opsproof.system.store.directory import DirectoryStore
from opsproof.target import S3StoreSettings, Target
from tests.lab.bundles import Piece, sha256
from tests.lab.postgres_server import PostgresServer
from tests.lab.verifying import Shelf, rebuild, running_shelf

Change = Callable[[dict[str, Piece]], None]


@pytest.fixture(scope="module")
def untouched(wheel_postgres: PostgresServer) -> Iterator[Shelf]:
    with running_shelf(wheel_postgres) as shelf:
        yield shelf


@pytest.fixture
def shelf(untouched: Shelf) -> Shelf:
    return untouched.copy()


def chosen(shelf: Shelf) -> str:
    return choose_backup(shelf.target, shelf.store, "latest", None).id


def require_failed(shelf: Shelf, *words: str, deep: bool = False) -> None:
    """Verify the newer backup: it must fail, saying these words, and count for nothing afterwards."""
    (done,) = shelf.look(shelf.newer.id, deep=deep)
    assert done.verdict == "failed", done
    assert done.error is not None
    for word in words:
        assert word in str(done.error), str(done.error)
    assert done.error.hint
    assert shelf.verdicts() == {shelf.newer.id: ["failed"]}
    record = shelf.record(shelf.newer)
    assert (record["verdict"], record["deep"]) == ("failed", deep)
    assert record["findings"][0]["summary"] == done.error.summary
    with pytest.raises(ProofError, match="1 failed"):
        require_passed([done])
    assert chosen(shelf) == shelf.older.id
    with pytest.raises(StoreError, match="was found damaged, so it counts for nothing") as refused:
        choose_backup(shelf.target, shelf.store, shelf.newer.id, None)
    assert f"--backup={shelf.newer.id}   verifies it again" in refused.value.hint


def test_one_flipped_byte(shelf: Shelf) -> None:
    path = shelf.bundle(shelf.newer)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    require_failed(shelf, "is not what was backed up", shelf.newer.sha256)


def test_a_truncated_bundle_fails_without_being_read_also_as_the_latest(shelf: Shelf) -> None:
    path = shelf.bundle(shelf.newer)
    path.write_bytes(path.read_bytes()[:-1000])
    newer, older = shelf.look("latest")
    assert (newer.id, newer.verdict, older.id, older.verdict) == (shelf.newer.id, "failed", shelf.older.id, "passed")
    assert "but its manifest says" in str(newer.error)
    assert shelf.verdicts() == {shelf.newer.id: ["failed"], shelf.older.id: ["passed"]}
    # Once that is known, the latest is the one before, and no more is said of it.
    assert [one.id for one in shelf.look("latest")] == [shelf.older.id]


def test_the_manifest_of_another_backup(shelf: Shelf) -> None:
    shutil.copy(shelf.sidecar(shelf.older), shelf.sidecar(shelf.newer))
    (done,) = shelf.look(shelf.newer.id)
    assert done.verdict == "failed"
    assert shelf.verdicts() == {shelf.newer.id: ["failed"]}


def test_a_manifest_of_a_newer_version_is_no_fault_of_the_backup(shelf: Shelf) -> None:
    path = shelf.sidecar(shelf.newer)
    content = json.loads(path.read_text())
    content["manifest"]["format_version"] = 99
    path.write_text(json.dumps(content))
    (done,) = shelf.look(shelf.newer.id)
    assert done.verdict == "error"
    assert "was written by a newer opsproof" in str(done.error)


def test_one_attachment_is_missing_in_the_bundle(shelf: Shelf) -> None:
    # Only one that a row names: the filestore also holds an orphan and a marker, which nobody misses.
    name = next(row[2] for row in shelf.own.committed if row[2])
    rebuild(shelf, shelf.newer, lambda members: members.pop(f"filestore/{name}"))
    require_failed(shelf, "1 of 12 attachments are not in the backup", f"{name} is missing")


def test_a_file_that_no_row_names_is_not_missed(shelf: Shelf) -> None:
    rebuild(shelf, shelf.newer, lambda members: members.pop("filestore/checklist/marker"))
    (done,) = shelf.look(shelf.newer.id)
    assert done.verdict == "passed", done.error


def with_another_row(members: dict[str, Piece]) -> None:
    """As if a row had changed between the dump and the counting."""
    lines = [json.loads(line) for line in members["tables.jsonl"].data.splitlines()]
    partner = next(line for line in lines if line["table"] == "public.res_partner")
    partner["fingerprint"] = partner["fingerprint"][::-1]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    members["tables.jsonl"] = Piece("tables.jsonl", text.encode())


def with_a_row_less(members: dict[str, Piece]) -> None:
    lines = [json.loads(line) for line in members["tables.jsonl"].data.splitlines()]
    next(line for line in lines if line["table"] == "public.res_partner")["rows"] -= 1
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    members["tables.jsonl"] = Piece("tables.jsonl", text.encode())


def shortened(ending: str, share: float) -> Change:
    def change(members: dict[str, Piece]) -> None:
        name = next(name for name in members if name.endswith(ending) and "/" not in name)
        data = members[name].data
        members[name] = Piece(name, data[: int(len(data) * share)])

    return change


def with_other_sql(members: dict[str, Piece]) -> None:
    name = next(name for name in members if name.endswith(".sql") and name != "roles.sql")
    data = members[name].data
    start = data.index(b"COPY public.res_partner ")
    first = data.index(b"\n", start) + 1
    members[name] = Piece(name, data[:first] + data[data.index(b"\n", first) + 1 :])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_another_row, ("does not hold what the manifest says", "public.res_partner: ")),
        (with_a_row_less, ("does not hold what the manifest says", "public.res_partner: ")),
        (shortened(".dump", 0.6), ("pg_restore", "cannot read the dump to its end")),
        (shortened(".sql", 0.999), ("The dump has no footer",)),
        (shortened(".sql", 0.6), ("The dump ended inside the data of",)),
        (with_other_sql, ("The dump and the SQL of the bundle do not hold the same", "public.res_partner")),
    ],
)
def test_a_bundle_whose_hashes_agree_but_not_its_content(shelf: Shelf, change: Change, words: tuple[str, ...]) -> None:
    rebuild(shelf, shelf.newer, change)
    require_failed(shelf, *words)


def test_deep_finds_what_only_a_restore_shows(shelf: Shelf) -> None:
    def claim(manifest: Manifest) -> Manifest:
        ahead = [one.model_copy(update={"last_value": (one.last_value or 0) + 100}) for one in manifest.sequences]
        return manifest.model_copy(update={"sequences": tuple(ahead)})

    rebuild(shelf, shelf.newer, lambda members: None, claim)
    require_failed(shelf, "_id_seq", deep=True)
    assert shelf.scratch_databases() == []


def test_deep_restores_beside_and_leaves_nothing(shelf: Shelf) -> None:
    # As if a run had been killed.
    abandoned = scratch_name(shelf.own.name, datetime(2020, 1, 1, tzinfo=UTC))
    with shelf.own.server.connect() as connection:
        owner = sql.Identifier(shelf.own.application.role)
        statement = sql.SQL("CREATE DATABASE {} OWNER {} IS_TEMPLATE true").format(sql.Identifier(abandoned), owner)
        connection.execute(statement)
    before = shelf.own.live_contents()
    (done,) = shelf.look(shelf.newer.id, deep=True)
    assert (done.verdict, done.error) == ("passed", None), done
    assert any("restored into a scratch database" in check for check in done.checks)
    # The application's role is no superuser, so it may not create amcheck.
    assert any(sentence.startswith("amcheck: ") for sentence in done.unverified)
    assert shelf.scratch_databases() == []
    assert shelf.own.live_contents() == before
    as_superuser = shelf.look(
        shelf.newer.id, deep=True, target=replace(shelf.target, database=shelf.own.server.address(shelf.own.name))
    )
    assert any(check.startswith("amcheck: ") for check in as_superuser[0].checks), as_superuser


class Faulty(DirectoryStore):
    """A store that looks like a bucket, and does not do everything."""

    def __init__(
        self, folder: Path, reading: OpsproofError | None = None, writing: OpsproofError | None = None
    ) -> None:
        super().__init__(folder)
        self.reading, self.writing, self.reads = reading, writing, 0

    def read(self, name: str) -> Iterator[bytes]:
        if not name.endswith(".zip"):
            return super().read(name)
        self.reads += 1
        if self.reading is not None:
            raise self.reading
        return super().read(name)

    def put_small(self, name: str, data: bytes, *, locked: bool = True) -> StoredObject:
        if self.writing is not None and ".verdict_" in name:
            raise self.writing
        return super().put_small(name, data, locked=locked)


def in_a_bucket(target: Target) -> Target:
    """What is in a bucket is downloaded, not read where it is."""
    return replace(target, store=S3StoreSettings("backups", "eu-central-1"))


@pytest.mark.parametrize(
    "refusal",
    [
        StoreUnreachable("The store did not answer"),
        StoreDenied("The store refused", hint="aws sts get-caller-identity"),
    ],
)
def test_a_store_that_does_not_answer_is_an_error_and_no_fault_of_the_backup(shelf: Shelf, refusal: StoreError) -> None:
    store = Faulty(shelf.folder, reading=refusal)
    (done,) = shelf.look(shelf.newer.id, target=in_a_bucket(shelf.target), store=store)
    assert (done.verdict, done.error) == ("error", refusal)
    assert shelf.verdicts() == {shelf.newer.id: ["error"]}
    with pytest.raises(type(refusal), match="1 could not be verified"):
        require_passed([done])
    # It still counts, for nothing is known against it.
    assert chosen(shelf) == shelf.newer.id


def test_a_damaged_download_is_read_once_more_before_the_backup_is_blamed(shelf: Shelf) -> None:
    class Flickering(Faulty):
        def read(self, name: str) -> Iterator[bytes]:
            for chunk in super().read(name):
                yield chunk if self.reads != 1 else bytes([chunk[0] ^ 1]) + chunk[1:]

    store = Flickering(shelf.folder)
    (done,) = shelf.look(shelf.newer.id, target=in_a_bucket(shelf.target), store=store)
    assert (done.verdict, store.reads) == ("passed", 2)


def test_no_server_and_no_programs_is_an_error(shelf: Shelf, tmp_path: Path) -> None:
    target = replace(shelf.target, pg_bindir=str(tmp_path))
    (done,) = shelf.look(shelf.newer.id, target=target)
    assert done.verdict == "error"
    assert "pg_dump not found" in str(done.error)
    unreachable = replace(target.database, host="127.0.0.1", port=1)
    (deep,) = shelf.look(shelf.newer.id, deep=True, target=replace(shelf.target, database=unreachable))
    # Without a server the dump is still read: by the programs of the version that wrote it.
    assert deep.verdict == "error"
    assert any("dump read to its end" in check for check in deep.checks)
    assert shelf.verdicts() == {shelf.newer.id: ["error", "error"]}
    assert chosen(shelf) == shelf.newer.id


def test_a_server_that_may_not_take_a_trial_restore_is_an_error(shelf: Shelf) -> None:
    with shelf.own.server.connect() as connection:
        connection.execute(f'ALTER ROLE "{shelf.own.application.role}" NOCREATEDB'.encode())
    try:
        (done,) = shelf.look(shelf.newer.id, deep=True)
    finally:
        with shelf.own.server.connect() as connection:
            connection.execute(f'ALTER ROLE "{shelf.own.application.role}" CREATEDB'.encode())
    assert done.verdict == "error"
    assert "CREATEDB" in str(done.error)


def test_no_room_is_an_error(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(shelf.folder)
    monkeypatch.setattr("opsproof.procedures.verify.soundness.shutil.disk_usage", lambda _: usage._replace(free=1000))
    (done,) = shelf.look(shelf.newer.id)
    assert done.verdict == "error"
    assert isinstance(done.error, HostError)
    assert "TMPDIR=" in done.error.hint


def test_a_verdict_that_cannot_be_recorded_is_told_and_is_no_pass(shelf: Shelf) -> None:
    store = Faulty(shelf.folder, writing=StoreDenied("The store refused", hint="s3:PutObject"))
    (done,) = shelf.look(shelf.newer.id, store=store)
    assert (done.verdict, done.recorded) == ("passed", "")
    with pytest.raises(StoreDenied, match="have not passed") as raised:
        require_passed([done])
    assert "passed, but its verdict could not be recorded: The store refused" in raised.value.found
    assert "s3:PutObject" in raised.value.hint
    assert shelf.verdicts() == {}


def test_all_goes_on_after_a_failure_and_leaves_out_what_was_never_finished(shelf: Shelf) -> None:
    path = shelf.bundle(shelf.newer)
    data = bytearray(path.read_bytes())
    data[1000] ^= 0x10
    path.write_bytes(data)
    unfinished = shelf.folder / f"{shelf.own.name}_2020-01-01_00-00-00.zip"
    unfinished.write_bytes(b"half")
    stranger = shelf.folder / "another_2020-01-01_00-00-00.zip"
    stranger.write_bytes(b"half")
    found = shelf.look("all")
    assert [(one.id, one.verdict) for one in found] == [
        (shelf.newer.id, "failed"), (shelf.older.id, "passed"), (unfinished.stem, "skipped"),
    ]  # fmt: skip
    assert shelf.verdicts() == {shelf.newer.id: ["failed"], shelf.older.id: ["passed"]}
    with pytest.raises(ProofError, match=r"1 of 3 backups have not passed: 1 failed, 0 .*, 1 passed"):
        require_passed(found)


def test_what_failed_counts_again_once_it_has_passed(shelf: Shelf) -> None:
    path = shelf.bundle(shelf.newer)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    shelf.look(shelf.newer.id)
    assert chosen(shelf) == shelf.older.id
    path.write_bytes(whole)
    (done,) = shelf.look(shelf.newer.id)
    assert done.verdict == "passed"
    assert shelf.verdicts() == {shelf.newer.id: ["failed", "passed"]}
    assert chosen(shelf) == shelf.newer.id


def test_a_backup_that_is_removed_meanwhile_is_skipped(shelf: Shelf) -> None:
    class Vanishing(Faulty):
        def read(self, name: str) -> Iterator[bytes]:
            if name.endswith(".zip"):
                (shelf.folder / name).unlink()
            return super().read(name)

    store = Vanishing(shelf.folder)
    (done,) = shelf.look(shelf.newer.id, target=in_a_bucket(shelf.target), store=store)
    assert (done.verdict, shelf.verdicts()) == ("skipped", {})
    with pytest.raises(ProofError, match="No backup was verified") as raised:
        require_passed([done])
    assert "removed from the store meanwhile" in raised.value.found


def test_a_file_is_read_where_it_is_and_gets_no_verdict(shelf: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "copy.zip"
    shutil.copy(shelf.bundle(shelf.newer), path)
    (done,) = shelf.look(str(path))
    assert (done.verdict, done.recorded) == ("passed", "")
    assert any("no manifest beside it" in sentence for sentence in done.unverified)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    (damaged,) = shelf.look(str(path))
    assert damaged.verdict == "failed"
    assert [one.name for one in tmp_path.iterdir()] == ["copy.zip"]
    assert shelf.verdicts() == {}


@pytest.mark.parametrize("name", ["click-odoo.zip", "odoo-manager.zip", "click-odoo.dump"])
def test_a_file_of_another_program(shelf: Shelf, name: str) -> None:
    path = Path(__file__).parents[1] / "data" / name
    (done,) = shelf.look(str(path))
    assert done.verdict == "passed", done.error
    assert done.unverified
    assert require_passed([done]) == (done,)


def test_another_targets_backup_is_refused(shelf: Shelf) -> None:
    with pytest.raises(ConfigurationError, match="is not a backup of"):
        shelf.look(shelf.newer.id, target=replace(shelf.target, name="other"))
    with pytest.raises(StoreError, match="No verified backup"):
        shelf.look("all", target=replace(shelf.target, name="other", database=replace(shelf.target.database, name="x")))


def test_a_plain_backup_is_read_to_its_footer(untouched: Shelf, tmp_path: Path) -> None:
    own = untouched.own
    name = own.name
    folder = tmp_path / "plain"
    url = f"postgresql://postgres:{own.server.password}@127.0.0.1:{own.server.port}/{name}"
    own.project.write_inventory(
        {"plain": {"shop": {"database_url": url, "pg_bindir": str(own.server.bindir), "backup_dir": str(folder)}}}
    )
    run = own.project.run(env="plain")
    assert run.status == 0, run.output
    (target,) = load_environment("plain", inventory=own.project.inventory, environ={}).targets
    store = open_store(target.store, target.customer)
    (done,) = Verify(target, store, Journal(), "latest", deep=True).verify()
    assert done.verdict == "passed", done.error
    (path,) = folder.rglob("*.sql")
    text = path.read_bytes()
    path.write_bytes(text.replace(b"partner", b"pratner", 1))
    (damaged,) = Verify(target, store, Journal(), "latest").verify()
    assert damaged.verdict == "failed"


def test_an_encrypted_backup_needs_a_key_and_without_one_nothing_is_known_against_it(
    shelf: Shelf, tmp_path: Path
) -> None:
    pyrage = load_pyrage()
    identity = pyrage.x25519.Identity.generate()
    key = tmp_path / "key.txt"
    key.write_text(f"{identity}\n")
    key.chmod(0o600)
    plain = shelf.bundle(shelf.newer)
    sealed = pyrage.encrypt(plain.read_bytes(), [identity.to_public()])
    path = plain.with_name(f"{plain.name}.age")
    path.write_bytes(sealed)
    changes = {
        "name": path.name,
        "bytes": len(sealed),
        "sha256": sha256(sealed),
        "sealed": "age",
        "recipients": (str(identity.to_public()),),
        "opened_bytes": plain.stat().st_size,
    }
    shelf.sidecar(shelf.newer).write_bytes(to_json(shelf.newer.model_copy(update=changes)))
    plain.unlink()
    policies = replace(shelf.target.policies, sealing=Sealing(identity_file=str(key)))
    (done,) = shelf.look("latest", target=replace(shelf.target, policies=policies))
    assert (done.id, done.verdict) == (shelf.newer.id, "passed"), done.error
    (blind,) = shelf.look("latest")
    assert blind.verdict == "error"
    assert chosen(shelf) == shelf.newer.id
    # In the header, where it looks as if the key were another's.
    path.write_bytes(sealed[:100] + bytes([sealed[100] ^ 1]) + sealed[101:])
    (damaged,) = shelf.look("latest", target=replace(shelf.target, policies=policies))
    assert damaged.verdict == "failed", damaged.error
    assert shelf.verdicts()[shelf.newer.id] == ["passed", "error", "failed"]
    # It is not encrypted, and what is found may be what stands in a row.
    assert damaged.error is not None
    (finding,) = shelf.record(shelf.newer)["findings"]
    assert finding == {"summary": damaged.error.summary, "expected": "", "found": UNTOLD}
    assert chosen(shelf) == shelf.older.id
