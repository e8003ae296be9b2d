"""A verification of one backup, of all of them, and of each kind: what is recorded, and what is chosen then."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from psycopg import sql

from opsproof.archive.manifest import to_json
from opsproof.archive.sealing.agekeys import load_pyrage
from opsproof.errors import ConfigurationError, ProofError, StoreError
from opsproof.inventory.loading import load_environment
from opsproof.journal import Journal
from opsproof.policies import Sealing
from opsproof.procedures.verify.procedure import UNTOLD, Verify, require_passed
from opsproof.system.postgres.databases import scratch_name
from opsproof.system.store import open_store
from tests.lab.bundles import sha256
from tests.lab.verifying import Shelf

pytest_plugins = ["tests.lab.shelf"]


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
    assert shelf.chosen() == shelf.older.id
    path.write_bytes(whole)
    (done,) = shelf.look(shelf.newer.id)
    assert done.verdict == "passed"
    assert shelf.verdicts() == {shelf.newer.id: ["failed", "passed"]}
    assert shelf.chosen() == shelf.newer.id


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


def test_a_plain_backup_is_read_to_its_footer(shelf: Shelf, tmp_path: Path) -> None:
    own = shelf.own
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
    assert shelf.chosen() == shelf.newer.id
    # In the header, where it looks as if the key were another's.
    path.write_bytes(sealed[:100] + bytes([sealed[100] ^ 1]) + sealed[101:])
    (damaged,) = shelf.look("latest", target=replace(shelf.target, policies=policies))
    assert damaged.verdict == "failed", damaged.error
    assert shelf.verdicts()[shelf.newer.id] == ["passed", "error", "failed"]
    # It is not encrypted, and what is found may be what stands in a row.
    assert damaged.error is not None
    (finding,) = shelf.record(shelf.newer)["findings"]
    assert finding == {"summary": damaged.error.summary, "expected": "", "found": UNTOLD}
    assert shelf.chosen() == shelf.older.id
