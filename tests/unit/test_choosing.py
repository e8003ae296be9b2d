"""Choosing a backup in a folder: one's own, verified, the newest, and never another one in silence."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsproof.archive.catalogue import READ_AT_ONCE, sidecar_name
from opsproof.archive.choosing import Choice, choose_backup
from opsproof.archive.manifest import to_json
from opsproof.errors import ArchiveError, ConfigurationError, StoreDenied, StoreError, StoreUnreachable
from opsproof.system.store import Store, open_store
from opsproof.system.store.directory import DirectoryStore
from opsproof.target import DatabaseAddress, DirectoryStoreSettings, Target
from tests.lab.manifests import TAKEN
from tests.lab.targets import CUSTOMER, put_backup, put_object, sidecar_for, target_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def target(folder: Path) -> Target:
    return target_of(folder)


@pytest.fixture
def store(target: Target) -> Store:
    return open_store(target.store, target.customer)


def written(store: Store, name: str, moment: datetime) -> None:
    """Let a file look as if it was written then."""
    os.utime(Path(store.location, name), (moment.timestamp(), moment.timestamp()))


def latest(target: Target, store: Store, at: datetime | None = None, source: Target | None = None) -> Choice:
    return choose_backup(target, store, "latest", at, source)


def test_latest_is_the_newest_by_the_time_of_its_snapshot(target: Target, store: Store) -> None:
    put_backup(store, 2, data=b"the newest")
    put_backup(store, 1)
    newest_id = put_backup(store, 3, data=b"newer still")
    put_backup(store, 0)
    choice = latest(target, store)
    assert choice.id == newest_id
    assert choice.name == f"{newest_id}.zip"
    assert choice.location == f"{store.location}{newest_id}.zip"
    assert choice.path == Path(choice.location)
    assert choice.bytes == len(b"newer still")
    assert choice.sidecar is not None
    assert choice.sidecar.manifest.taken == TAKEN + timedelta(days=3)
    assert choice.why.startswith("the newest verified backup of prod/erp, ")


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (timedelta(hours=7, minutes=5), "7 hours old"),
        (timedelta(hours=1, minutes=5), "1 hour old"),
        (timedelta(days=3, minutes=5), "3 days old"),
        (timedelta(minutes=2, seconds=5), "2 minutes old"),
        (timedelta(seconds=1), "less than a minute old"),
        (-timedelta(days=1), "yet to come by this machine's clock"),
    ],
)
def test_why_says_how_old_it_is(target: Target, store: Store, age: timedelta, said: str) -> None:
    put_backup(store, (datetime.now(UTC) - age - TAKEN) / timedelta(days=1))
    assert latest(target, store).why.endswith(said)


def test_of_hundreds_only_the_newest_are_read(target: Target, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    real = store.get_small

    def counting(name: str) -> bytes:
        read.append(name)
        return real(name)

    for day in range(120):
        name = put_backup(store, day)
        written(store, f"{name}.zip", TAKEN + timedelta(days=day))
    monkeypatch.setattr(store, "get_small", counting)
    assert latest(target, store).id == name
    assert len(read) == READ_AT_ONCE


def test_an_own_backup_behind_hundreds_of_others_is_found(target: Target, store: Store) -> None:
    own = put_backup(store, 0)
    for day in range(1, 130):
        put_backup(store, day, environment="staging")
    assert latest(target, store).id == own


@pytest.mark.parametrize("order", [1, -1], ids=["as taken", "backwards"])
def test_wrong_times_of_the_files_do_not_hide_the_newest(target: Target, store: Store, order: int) -> None:
    """A folder that was copied about has any times; the snapshot's time in the name counts, too."""
    names = [put_backup(store, day) for day in range(30)]
    for number, name in enumerate(names):
        written(store, f"{name}.zip", TAKEN - timedelta(days=1000) + order * timedelta(days=number))
    assert latest(target, store).id == names[-1]


def test_a_name_that_says_nothing_does_not_hide_the_newest(target: Target, store: Store) -> None:
    for day in range(30):
        name = put_backup(store, day)
        written(store, f"{name}.zip", TAKEN + timedelta(days=day))
    for path in Path(store.location).glob(f"{name}.*"):
        path.rename(path.with_name(path.name.replace(name, "before-the-move")))
    assert latest(target, store).id == "before-the-move"


def test_a_server_whose_clock_is_ahead_does_not_hide_the_newest(target: Target, store: Store) -> None:
    for number in range(20):
        name = put_backup(store, number / 24)
        written(store, f"{name}.zip", TAKEN + timedelta(hours=number))
    ahead = put_backup(store, 1, id="named-by-hand")
    written(store, f"{ahead}.zip", TAKEN + timedelta(hours=1))
    assert latest(target, store).id == ahead


def test_a_name_with_a_month_that_is_none_is_no_error(target: Target, store: Store) -> None:
    put_object(store, "acme_2024-13-99_01-02-03.zip", b"x")
    put_object(store, "acme_9999-12-31_23-59-59.zip", b"x")
    own = put_backup(store, 0)
    assert latest(target, store).id == own


def test_at_is_the_newest_not_after_that_time(target: Target, store: Store) -> None:
    names = [put_backup(store, day) for day in range(5)]
    choice = latest(target, store, TAKEN + timedelta(days=2, hours=23))
    assert choice.id == names[2]
    assert "not after 2024-03-08 00:02:03 UTC" in choice.why


def test_at_to_the_second_takes_the_backup_that_a_listing_shows_with_that_time(target: Target, store: Store) -> None:
    name = put_backup(store, 0)
    assert TAKEN.microsecond
    assert latest(target, store, TAKEN.replace(microsecond=0)).id == name
    with pytest.raises(StoreError, match="not after 2024-03-05 01:02:02 UTC was found"):
        latest(target, store, TAKEN.replace(microsecond=0) - timedelta(seconds=1))


def test_unverified_ones_are_passed_over_and_the_newer_is_named(target: Target, store: Store) -> None:
    put_backup(store, 0, verified=False)
    own = put_backup(store, 1)
    newer = put_backup(store, 2, verified=False)
    now = datetime.now(UTC)
    written(store, f"{newer}.zip", now)
    choice = latest(target, store)
    assert choice.id == own
    assert choice.why.endswith(f"({newer} is newer, but does not count: no manifest beside it)")


def test_an_older_unverified_one_is_not_worth_a_word(target: Target, store: Store) -> None:
    put_backup(store, 0, verified=False)
    put_backup(store, 1)
    assert "does not count" not in latest(target, store).why


def test_a_bundle_of_another_size_than_its_manifest_says_is_passed_over(target: Target, store: Store) -> None:
    own, cut = put_backup(store, 0), put_backup(store, 1)
    Path(store.location, f"{cut}.zip").write_bytes(b"conten")
    assert latest(target, store).id == own


def test_latest_is_never_a_safety_backup(target: Target, store: Store) -> None:
    own = put_backup(store, 0, kind="before deploy")
    safety = put_backup(store, 1, kind="safety")
    assert latest(target, store).id == own
    named = choose_backup(target, store, safety, None)
    assert named.id == safety
    assert named.why.startswith("named by its id: a safety backup of prod/erp, ")


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


def test_what_is_there_instead_is_told_with_what_to_type(target: Target, store: Store) -> None:
    for day in range(3):
        other = put_backup(store, day, environment="staging")
    safety = put_backup(store, 5, kind="safety")
    unverified = put_backup(store, 6, verified=False)
    later = put_backup(store, 8)
    put_backup(store, 9)
    gone = put_backup(store, 10)
    Path(store.location, f"{gone}.zip").unlink()
    with pytest.raises(StoreError, match="No verified backup of prod/erp not after 2024-03-12") as caught:
        latest(target, store, TAKEN + timedelta(days=7))
    error = caught.value
    assert error.expected.endswith(f"in {store.location} (folder {store.location[:-19]}, customer acme-corp)")
    assert error.found.splitlines() == [
        f"2 taken after 2024-03-12 01:02:03 UTC, the oldest {later}",
        f"1 taken for safety: {safety}",
        f"3 of staging/erp, the newest {other}",
        f"1 never verified: {unverified} (no manifest beside it)",
        "1 manifests without their backups",
    ]
    assert error.hint.splitlines() == [
        f"--backup={later}",
        f"--backup={safety}   takes that safety backup",
        "--from=staging/erp",
        f"--backup={store.location}{unverified}.zip   takes {unverified} as it is, unverified",
        "check backup_dir and the customer name",
    ]
    for line in error.hint.splitlines()[:2]:
        wanted = line.split()[0].removeprefix("--backup=")
        assert choose_backup(target, store, wanted, None).id == wanted


def test_an_empty_place_is_told_with_the_customers_beside_it(target: Target, store: Store, folder: Path) -> None:
    with pytest.raises(StoreError) as caught:
        latest(target, store)
    assert caught.value.found == f"there is no folder {store.location}"
    put_backup(open_store(target.store, "acme-corporation"), customer="acme-corporation")
    (folder / "lost+found").mkdir()
    Path(store.location).mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        latest(target, store)
    assert caught.value.found.splitlines() == [
        f"nothing at all under {store.location}",
        "folders of customers beside it: acme-corporation",
    ]


@pytest.mark.parametrize("error", [StoreDenied("refused"), StoreUnreachable("silent"), StoreError("broken")])
@pytest.mark.parametrize("wanted", ["latest", "id"])
def test_no_older_backup_is_taken_where_a_newer_cannot_be_looked_at(
    target: Target, store: Store, monkeypatch: pytest.MonkeyPatch, error: StoreError, wanted: str
) -> None:
    put_backup(store, 0)
    newer = put_backup(store, 1)
    real = store.get_small

    def failing(name: str) -> bytes:
        if name == sidecar_name(newer):
            raise error
        return real(name)

    monkeypatch.setattr(store, "get_small", failing)
    with pytest.raises(StoreError) as caught:
        choose_backup(target, store, newer if wanted == "id" else wanted, None)
    assert caught.value is error
    assert ("check backup_dir" in error.hint) == isinstance(error, StoreDenied)


def test_a_backup_that_is_removed_meanwhile_is_passed_over(
    target: Target, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, removed = put_backup(store, 0), put_backup(store, 1)
    real = DirectoryStore.get_small

    def removing(self: DirectoryStore, name: str) -> bytes:
        if name == sidecar_name(removed):
            Path(store.location, name).unlink()
        return real(self, name)

    monkeypatch.setattr(DirectoryStore, "get_small", removing)
    assert latest(target, store).id == own


def test_a_folder_that_may_not_be_listed_says_so(target: Target, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put_backup(store, 0)

    def refused(*_: object, onerror: object = None) -> object:
        raise PermissionError(13, "Permission denied", store.location)

    monkeypatch.setattr("opsproof.system.store.directory.os.walk", refused)
    with pytest.raises(StoreDenied, match="may not list") as caught:
        latest(target, store)
    assert "to look for backups of prod/erp in" in caught.value.expected


def test_a_path_is_taken_as_it_is_with_the_sidecar_beside_it(target: Target, store: Store, tmp_path: Path) -> None:
    sidecar = sidecar_for(b"content")
    path = tmp_path / sidecar.name
    path.write_bytes(b"content")
    choice = choose_backup(target, store, str(path), None)
    assert (choice.path, choice.store, choice.name, choice.sidecar) == (path, None, "", None)
    assert (choice.id, choice.bytes, choice.location) == (sidecar.id, 7, str(path))
    assert "there is no manifest beside it" in choice.why
    (tmp_path / sidecar_name(sidecar.id)).write_bytes(to_json(sidecar))
    assert choose_backup(target, store, str(path), None).sidecar == sidecar


def test_a_path_s_sidecar_must_be_its_own(target: Target, store: Store, tmp_path: Path) -> None:
    sidecar = sidecar_for(b"content", environment="staging")
    path, beside = tmp_path / sidecar.name, tmp_path / sidecar_name(sidecar.id)
    path.write_bytes(b"content")
    beside.write_bytes(to_json(sidecar))
    with pytest.raises(ConfigurationError, match="is not a backup of prod/erp"):
        choose_backup(target, store, str(path), None)
    unpacked = path.with_suffix(".sql")
    unpacked.write_bytes(b"SELECT 1;")
    assert choose_backup(target, store, str(unpacked), None).sidecar is None
    path.write_bytes(b"conten")
    with pytest.raises(ArchiveError, match="is not what the manifest beside it describes"):
        choose_backup(target, store, str(path), None)
    beside.write_bytes(b"{}")
    with pytest.raises(ArchiveError, match="is not a backup's manifest"):
        choose_backup(target, store, str(path), None)


def test_a_folder_is_taken_as_it_is_but_not_one_of_backups(target: Target, store: Store, tmp_path: Path) -> None:
    dump = tmp_path / "odoo"
    (dump / "filestore").mkdir(parents=True)
    (dump / "manifest.json").write_bytes(b"{}")
    (dump / "filestore" / "file").write_bytes(b"12345")
    choice = choose_backup(target, store, f"{tmp_path}/odoo/", None)
    assert (choice.path, choice.id, choice.bytes, choice.sidecar) == (dump, "odoo", 7, None)
    name = put_backup(store)
    with pytest.raises(ConfigurationError, match="is a folder of backups") as caught:
        choose_backup(target, store, store.location, None)
    assert caught.value.hint == f"--backup={store.location}{name}.zip"


def test_a_file_of_this_folder_is_found_where_the_store_has_no_such_id(
    target: Target, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("copy.sql.gz").write_bytes(b"x")
    choice = choose_backup(target, store, "copy.sql.gz", None)
    assert (choice.path, choice.id) == (tmp_path / "copy.sql.gz", "copy")
    name = put_backup(store)
    Path(f"{name}.zip").write_bytes(b"another of that name")
    assert choose_backup(target, store, f"{name}.zip", None).location == f"{store.location}{name}.zip"


@pytest.mark.parametrize("wanted", ["", "/nowhere/x.zip", "./x.zip", "~nobody-here/x.zip", "/dev/null", "/a\0b"])
def test_what_cannot_be_a_backup_is_refused(target: Target, store: Store, wanted: str) -> None:
    with pytest.raises(ConfigurationError, match="is no backup"):
        choose_backup(target, store, wanted, None)


def test_a_time_goes_with_latest_alone(target: Target, store: Store) -> None:
    name = put_backup(store)
    with pytest.raises(ConfigurationError, match="both say which backup"):
        choose_backup(target, store, name, TAKEN)


def test_a_bucket_needs_the_settings_of_an_s3_store(target: Target, store: Store) -> None:
    with pytest.raises(ConfigurationError, match="Nothing says how to reach the bucket other"):
        choose_backup(target, store, "s3://other/x.zip", None)


@pytest.mark.parametrize("address", ["s3://", "s3://bucket", "s3://bucket/", "s3://bucket/folder/", "s3:///key"])
def test_an_address_of_no_object_is_refused(target: Target, store: Store, address: str) -> None:
    with pytest.raises(ConfigurationError, match="names no object"):
        choose_backup(target, store, address, None)


def test_a_customer_less_folder_holds_its_backups_itself(tmp_path: Path) -> None:
    target = target_of(DirectoryStoreSettings(tmp_path), customer="")
    store = open_store(target.store, "")
    put_backup(store, customer=CUSTOMER)
    with pytest.raises(StoreError) as caught:
        latest(target, store)
    assert caught.value.found.startswith("1 of prod/erp, customer acme-corp: acme_")
    own = put_backup(store, 1, customer="")
    assert latest(target, store).id == own
