"""A backup that is named by its id is one's own and verified, or that of the source that was named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.archive.catalogue.choosing import choose_backup
from opsproof.errors import ConfigurationError, StoreError
from opsproof.system.store import Store, open_store
from opsproof.target import DatabaseAddress, Target
from tests.lab.manifests import TAKEN
from tests.lab.targets import (
    folder,
    latest,
    put_backup,
    put_object,
    store,
    target,
    target_of,
)

__all__ = ["folder", "store", "target"]


@pytest.mark.parametrize(
    "other", [{"environment": "staging"}, {"target": "shop"}, {"customer": "globex"}, {"database": "acme2"}]
)
def test_another_s_backup_is_neither_the_latest_nor_taken_by_its_id(
    target: Target, store: Store, other: dict[str, str]
) -> None:
    own = put_backup(store, 0)
    foreign = put_backup(store, 1, **other)  # type: ignore[arg-type] # only texts of the manifest
    assert latest(target, store).id == own
    with pytest.raises(ConfigurationError, match=f"{foreign} is not a backup of prod/erp") as caught:
        choose_backup(target, store, foreign, None)
    assert next(iter(other.values())) in caught.value.found
    label = f"{other.get('environment', 'prod')}/{other.get('target', 'erp')}"
    assert f"--from={label}" in caught.value.hint


def test_with_from_the_source_s_backups_count_and_no_others(target: Target, store: Store) -> None:
    put_backup(store, 2)
    theirs = put_backup(store, 1, environment="staging", database="copy")
    source = replace(target, environment="staging", database=DatabaseAddress("elsewhere"))
    assert latest(target, store, source=source).id == theirs
    assert choose_backup(target, store, theirs, None, source).id == theirs
    own = put_backup(store, 3)
    with pytest.raises(ConfigurationError, match="is not a backup of staging/erp"):
        choose_backup(target, store, own, None, source)


def test_from_looks_into_the_source_s_store(target: Target, store: Store, tmp_path: Path) -> None:
    put_backup(store, 1)
    source = target_of(tmp_path / "theirs", environment="staging", customer="globex")
    their_store = open_store(source.store, source.customer)
    theirs = put_backup(their_store, 0, environment="staging", customer="globex")
    for given in (None, their_store):
        choice = choose_backup(target, store, "latest", None, source, given)
        assert choice.location == f"{tmp_path}/theirs/globex/backups/{theirs}.zip"


@pytest.mark.parametrize("ending", ["", ".zip", ".manifest.json"])
def test_an_id_is_found_with_and_without_its_ending(target: Target, store: Store, ending: str) -> None:
    put_backup(store, 1)
    name = put_backup(store, 0)
    choice = choose_backup(target, store, name + ending, None)
    assert (choice.id, choice.name) == (name, f"{name}.zip")
    assert choice.why.startswith("named by its id: a verified backup of prod/erp, ")


def test_a_plain_backup_is_found_by_its_id(target: Target, store: Store) -> None:
    name = put_backup(store, 0, id="backup_prod_20240305_010203", ending=".sql")
    for wanted in (name, f"{name}.sql", "latest"):
        assert choose_backup(target, store, wanted, None).name == f"{name}.sql"


def test_an_sql_that_was_unpacked_beside_its_bundle_is_no_backup(target: Target, store: Store) -> None:
    name = put_backup(store, 0)
    put_object(store, f"{name}.sql", b"content")
    assert choose_backup(target, store, name, None).name == f"{name}.zip"
    assert latest(target, store).name == f"{name}.zip"
    with pytest.raises(StoreError, match="was never verified") as caught:
        choose_backup(target, store, f"{name}.sql", None)
    assert f"its manifest is that of {name}.zip" in caught.value.found


def test_an_unverified_one_is_refused_with_what_to_do(target: Target, store: Store) -> None:
    name = put_backup(store, 0, verified=False)
    with pytest.raises(StoreError, match=f"{name} was never verified") as caught:
        choose_backup(target, store, name, None)
    assert f"{store.location}{name}.manifest.json" in caught.value.expected
    assert "pytest --list-backups --env=prod" in caught.value.hint
    (as_it_is,) = [line for line in caught.value.hint.splitlines() if "as it is" in line]
    wanted = as_it_is.split()[0].removeprefix("--backup=")
    assert choose_backup(target, store, wanted, None).sidecar is None


def test_an_id_that_is_not_there_is_answered_with_the_nearest(target: Target, store: Store) -> None:
    name = put_backup(store, 0)
    with pytest.raises(StoreError, match="There is no backup acme_2024-03-05_01-02-04") as caught:
        choose_backup(target, store, "acme_2024-03-05_01-02-04", None)
    assert caught.value.found == f"the nearest: {name}"
    assert store.location in caught.value.expected


def test_a_time_goes_with_latest_alone(target: Target, store: Store) -> None:
    name = put_backup(store)
    with pytest.raises(ConfigurationError, match="both say which backup"):
        choose_backup(target, store, name, TAKEN)
