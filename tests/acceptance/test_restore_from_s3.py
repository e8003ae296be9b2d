"""`pytest actions/test_restore.py` from a bucket: what an address or a search in it comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from opsproof.archive.manifest import to_json
from tests.lab.action_run import ActionRun
from tests.lab.bucket import Bucket
from tests.lab.fault_proxy import Fault, FaultProxy, running_proxy
from tests.lab.moto_server import S3Server
from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import ENVIRONMENT, TARGET, Restorable, drop_others, restorable

NEEDED = "check the S3 bucket and the customer name; the credentials need s3:ListBucket and s3:GetObject"


@pytest.fixture(scope="module")
def backed_up(wheel_postgres: PostgresServer, moto_server: S3Server) -> Iterator[Restorable]:
    with restorable(wheel_postgres, s3=moto_server) as shop:
        yield shop


@pytest.fixture
def shop(backed_up: Restorable) -> Iterator[Restorable]:
    bucket = bucket_of(backed_up)
    stored = bucket.keys()
    backed_up.execute("UPDATE res_partner SET name = 'changed since' WHERE id = 7")
    yield backed_up
    drop_others(backed_up.application)
    backed_up.set()
    for key in set(bucket.keys()) - set(stored):
        bucket.client.delete_object(Bucket=bucket.name, Key=key)


@pytest.fixture
def proxy(moto_server: S3Server) -> Iterator[FaultProxy]:
    with running_proxy(moto_server.url) as proxy:
        yield proxy


def bucket_of(shop: Restorable) -> Bucket:
    assert shop.bucket is not None
    return shop.bucket


def store_of(shop: Restorable, **changes: object) -> dict[str, object]:
    """Return the inventory's variables for the store, with changes."""
    store: Any = shop.variables["store"]
    assert isinstance(store, Mapping)
    return {"store": {**store, **changes}}


def put(shop: Restorable, key: str, data: bytes) -> str:
    bucket = bucket_of(shop)
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=data)
    return f"s3://{bucket.name}/{key}"


def bundle(shop: Restorable) -> bytes:
    bucket = bucket_of(shop)
    key = next(key for key in bucket.keys() if key.endswith(shop.backup.name))  # noqa: SIM118 - no mapping
    return bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read()


def restore(shop: Restorable, address: str) -> ActionRun:
    return shop.restore(f"--backup={address}", "--no-safety-backup")


def require_refused(shop: Restorable, run: ActionRun, *words: str) -> None:
    """Check that nothing happened but that the first step says these words and what to type."""
    assert run.status == 1, run.output
    case = run.failed_step()
    assert case.step == "test_choose_backup"
    for word in (*words, "expected:", "found:", "kept:     nothing was changed", "hint:"):
        assert word in case.message, case.message
    assert {outcome for step, outcome in run.outcomes().items() if step != case.step} == {"skipped"}
    assert shop.query("SELECT name FROM res_partner WHERE id = 7") == [("changed since",)]
    assert set(shop.databases()) == {shop.name}


class TestAccepted:
    def test_a_bundle_with_its_manifest_beside_it(self, shop: Restorable) -> None:
        address = put(shop, f"moved here/{shop.backup.name}", bundle(shop))
        put(shop, f"moved here/{shop.backup.id}.manifest.json", to_json(shop.backup))
        run = restore(shop, address)
        assert run.status == 0, run.output
        assert run.cases[-1].properties["restore_backup"] == shop.backup.id
        assert f"location   {address}" in run.output
        assert "unverified" not in run.output
        assert shop.live_contents() == shop.contents

    def test_a_bundle_alone_which_says_by_itself_what_it_is(self, shop: Restorable) -> None:
        run = restore(shop, put(shop, "alone.zip", bundle(shop)))
        assert run.status == 0, run.output
        assert "unverified" not in run.output
        assert shop.live_contents() == shop.contents

    def test_a_dump_alone_of_which_is_told_what_nobody_could_verify(self, shop: Restorable, tmp_path: Path) -> None:
        whole = tmp_path / "whole.zip"
        whole.write_bytes(bundle(shop))
        with ZipFile(whole) as archive:
            dump = archive.read(f"{shop.backup.id}.dump")
        run = restore(shop, put(shop, "dumps/2024/odoo.dump", dump))
        assert run.status == 0, run.output
        assert "unverified" in run.output
        assert "It has no row counts" in run.output
        assert shop.live_contents() == shop.contents


class TestRefused:
    def test_what_is_not_there_is_answered_with_the_nearest(self, shop: Restorable) -> None:
        near = put(shop, "dumps/odoo.dump", b"PGDMP")
        run = restore(shop, near.replace("odoo.dump", "odo.dump"))
        require_refused(shop, run, "There is no backup odo.dump", "the nearest: odoo", "--list-backups")

    def test_a_bucket_that_is_not_there(self, shop: Restorable) -> None:
        name = bucket_of(shop).name
        run = restore(shop, f"s3://{name}x/dumps/odoo.dump")
        require_refused(shop, run, f"there is no bucket {name}x", NEEDED)

    @pytest.mark.parametrize("key", ["", "/", "/dumps/"])
    def test_a_folder(self, shop: Restorable, key: str) -> None:
        run = restore(shop, f"s3://{bucket_of(shop).name}{key}")
        require_refused(shop, run, "names no object", "s3://BUCKET/KEY of one backup", "--list-backups")

    def test_somebody_else_s_bundle(self, shop: Restorable) -> None:
        theirs = shop.backup.model_copy(
            update={"manifest": shop.backup.manifest.model_copy(update={"environment": "prod"})}
        )
        address = put(shop, f"moved/{shop.backup.name}", bundle(shop))
        put(shop, f"moved/{shop.backup.id}.manifest.json", to_json(theirs))
        run = restore(shop, address)
        require_refused(shop, run, f"is not a backup of {ENVIRONMENT}/{TARGET}", f"--from=prod/{TARGET}")

    def test_a_bundle_of_another_size_than_the_manifest_beside_it_says(self, shop: Restorable) -> None:
        address = put(shop, f"moved/{shop.backup.name}", bundle(shop)[1:])
        put(shop, f"moved/{shop.backup.id}.manifest.json", to_json(shop.backup))
        require_refused(shop, restore(shop, address), "is not what the manifest beside it describes", "bytes, but its")

    def test_an_address_where_the_target_has_no_s3_store(self, shop: Restorable, tmp_path: Path) -> None:
        known = {name: value for name, value in shop.variables.items() if name != "store"}
        known["backup_dir"] = str(tmp_path)
        shop.project.write_inventory({ENVIRONMENT: {TARGET: known}})
        run = restore(shop, "s3://other/dumps/o doo.dump")
        words = "aws s3 cp 's3://other/dumps/o doo.dump' .", "--backup='./o doo.dump'"
        require_refused(shop, run, "Nothing says how to reach the bucket other", *words)


class TestNothingFound:
    def test_an_empty_place_names_bucket_customer_and_prefix_and_the_nearest(self, shop: Restorable) -> None:
        put(shop, "team/acme-old/backups/x.zip", b"x")
        name = bucket_of(shop).name
        shop.set(customer="acme-odl", **store_of(shop, prefix="team/"))
        run = shop.restore("--no-safety-backup")
        place = f"s3://{name}/team/acme-odl/backups/"
        require_refused(
            shop,
            run,
            f"No verified backup of {ENVIRONMENT}/{TARGET} was found",
            f"{place} (bucket {name}, customer acme-odl, prefix team/)",
            f"nothing at all under {place}",
            "folders of customers beside it: acme-old",
            NEEDED,
        )

    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            (
                Fault("answer", "GET", query="list-type=2", status=403, code="AccessDenied"),
                ("listing s3://", "s3:ListBucket"),
            ),
            (
                Fault("answer", "GET", path=r"manifest\.json$", status=403, code="AccessDenied"),
                ("reading from s3://", "s3:GetObject"),
            ),
        ],
        ids=["listing", "reading"],
    )
    def test_refused_listing_and_refused_reading_are_told_apart(
        self, shop: Restorable, proxy: FaultProxy, fault: Fault, words: tuple[str, ...]
    ) -> None:
        shop.set(**store_of(shop, endpoint_url=proxy.url))
        proxy.inject(fault)
        run = shop.restore("--no-safety-backup")
        place = f"bucket {bucket_of(shop).name}, customer acme, prefix none"
        require_refused(shop, run, *words, "is not allowed", "to look for backups of", place, NEEDED)
        assert fault.struck
