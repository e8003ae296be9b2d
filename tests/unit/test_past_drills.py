"""The history of drills: read from journals that are whole, signed where they have to be, and told once each."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opsproof.archive.catalogue.drills import PastDrill, read_drills
from opsproof.archive.sealing.agekeys import IDENTITY_VARIABLE
from opsproof.archive.sealing.seal import seal
from opsproof.archive.sealing.signature import load_signer
from opsproof.journal import Journal
from opsproof.policies import Policies, Sealing
from opsproof.system.store import Store, open_store
from opsproof.target import Target
from tests.lab.sealing import SigningKey, new_age_key, new_signing_key
from tests.lab.targets import target_of

GOOD: dict[str, Any] = {
    "backup": "acme_2026-03-01_02-00-00", "restore": "passed", "validation": "passed",
    "rto": {"objective": None, "measured": 61.5, "phases": {}}, "rpo": {"age": 3600.0, "widest_gap": 90_000.0},
}  # fmt: skip


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return target_of(tmp_path / "store", environment="staging_eu")


@pytest.fixture
def store(target: Target) -> Store:
    return open_store(target.store, target.customer)


def journal_of(
    folder: Path, outcome: dict[str, Any] | None, *steps: str, target: str = "erp", environment: str = "staging_eu"
) -> bytes:
    """Return a journal, as a run writes it."""
    path = folder / f"{len(list(folder.glob('made-*')))}.made"
    path = path.with_name(f"made-{path.name}")
    journal = Journal(path)
    journal.record("run begins", action="drill", environment=environment, dry_run=False)
    if outcome is not None:
        journal.record("drill finished", target=target, outcome=outcome)
    for step in steps:
        journal.record("step", target=target, step=step, outcome="failed")
    journal.record("run ends", exit_status=0)
    journal.close()
    return path.read_bytes()


def put(store: Store, data: bytes, number: int, environment: str = "staging_eu") -> str:
    """Store a journal that is so many days old; return its name there."""
    moment = datetime(2026, 3, 31, 2, tzinfo=UTC) - timedelta(days=number)
    name = f"journals/drill_{environment}_{moment:%Y-%m-%d_%H-%M-%S}.jsonl"
    store.put_small(name, data)
    return name


def test_the_last_ones_of_this_target_the_oldest_first(store: Store, target: Target, tmp_path: Path) -> None:
    for number in range(25):
        outcome = {**GOOD, "rto": {"measured": float(number)}}
        put(store, journal_of(tmp_path, outcome), 40 - number)
    put(store, journal_of(tmp_path, GOOD, target="other"), 1)
    put(store, journal_of(tmp_path, GOOD, environment="staging_eu_2"), 2, environment="staging_eu_2")
    put(store, journal_of(tmp_path, GOOD, environment="prod"), 3)
    put(store, journal_of(tmp_path, None), 0)
    history = read_drills(store, target)
    assert [one.rto for one in history.drills] == [float(number) for number in range(5, 25)]
    assert history.faults == ()
    last = history.drills[-1]
    assert last == PastDrill(last.time, "passed", 24.0, 3600.0, GOOD["backup"], last.journal)
    assert last.journal.startswith("drill_staging_eu_2026-03-15")


@pytest.mark.parametrize(
    ("answers", "steps", "verdict"),
    [
        (("passed", "passed"), (), "passed"),
        (("passed", "passed"), ("test_nothing_is_left",), "failed"),
        (("failed", "not reached"), ("test_backup_is_whole",), "failed"),
        (("passed", "failed"), ("test_data_holds",), "failed"),
        (("broken", "not reached"), (), "broken"),
        (("passed", "broken"), (), "broken"),
        (("passed", "not reached"), (), "broken"),
    ],
)
def test_what_a_drill_came_to(
    store: Store, target: Target, tmp_path: Path, answers: tuple[str, str], steps: tuple[str, ...], verdict: str
) -> None:
    restore, validation = answers
    outcome = {**GOOD, "restore": restore, "validation": validation, "rto": None, "rpo": None}
    put(store, journal_of(tmp_path, outcome, *steps), 1)
    (one,) = read_drills(store, target).drills
    assert (one.verdict, one.rto, one.rpo_age) == (verdict, None, None)


def test_a_journal_that_was_changed_does_not_count(store: Store, target: Target, tmp_path: Path) -> None:
    good = journal_of(tmp_path, GOOD)
    name = put(store, good.replace(b"61.5", b"31.5"), 1)
    put(store, b"", 2)
    put(store, good, 3)
    put(store, good, 0)
    history = read_drills(store, target)
    assert [one.rto for one in history.drills] == [61.5]
    assert len(history.faults) == 2
    assert history.faults[0].startswith(f"{name}: line 3 does not follow line 2")
    assert history.faults[1].endswith("it has no line at all")


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return new_signing_key(tmp_path)


def test_where_there_is_a_public_key_only_signed_ones_count(
    store: Store, target: Target, tmp_path: Path, key: SigningKey
) -> None:
    sealing = Sealing(signing_key_file=str(key.private), verify_key_file=str(key.public))
    signer, other = (
        load_signer(sealing),
        load_signer(Sealing(signing_key_file=str(new_signing_key(tmp_path, "x").private))),
    )
    assert signer is not None
    assert other is not None
    for number, one in enumerate((signer, other, None)):
        data = journal_of(tmp_path, {**GOOD, "rto": {"measured": float(number)}})
        name = put(store, data, number)
        if one is not None:
            store.put_small(f"{name}.sig", one.sign(data))
    history = read_drills(store, replace(target, policies=Policies(sealing=sealing)))
    assert [one.rto for one in history.drills] == [0.0]
    assert [fault.partition(": ")[2] for fault in history.faults] == ["its signature is wrong", "it is not signed"]


def test_encrypted_journals_are_read_where_a_key_opens_them(
    store: Store, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = new_age_key(), new_age_key()
    for number, key in enumerate((ours, theirs)):
        data = journal_of(tmp_path, {**GOOD, "rto": {"measured": float(number)}})
        name = f"journals/drill_staging_eu_2026-03-0{number + 1}_02-00-00.jsonl.age"
        store.put_small(name, seal(data, [key.recipient]))
    monkeypatch.delenv(IDENTITY_VARIABLE, raising=False)
    assert [read_drills(store, target).drills, len(read_drills(store, target).faults)] == [(), 2]
    monkeypatch.setenv(IDENTITY_VARIABLE, ours.secret)
    history = read_drills(store, target)
    assert [one.rto for one in history.drills] == [0.0]
    (fault,) = history.faults
    assert fault.startswith("journals/drill_staging_eu_2026-03-02_02-00-00.jsonl.age: ")
