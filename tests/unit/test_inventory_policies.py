"""Retention, limits, locks, keys and whom to tell, as an inventory says them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from opsproof.inventory.loading import load_environment
from opsproof.policies import (
    Artifacts,
    BucketExpectations,
    Objectives,
    ObjectLock,
    Policies,
    Retention,
    Sealing,
    Thresholds,
)
from opsproof.target import S3StoreSettings
from tests.lab.inventories import environ, inventory, made, one_host, refusal, refused

__all__ = ["environ", "inventory"]

KEY = "age1" + "q" * 58
SPAN = "must be a number and s, m (minutes), h, d, w or y, as in 30d or 1.5h"
MOST = "must be more than nothing, and at most 100y"
OTHER_KEY = "age1" + "z9" * 29
ALL_OF_IT = f"""
      customer: acme
      retention:
        within: 36h
        last: 3
        daily: "7"
        weekly: 5
        monthly: 12
        yearly: 2
        noncurrent: yes
        safety: 4w
        parked: 1d
        uploads: 12h
        logs: 1y
      artifacts:
        tables: [migration_*, "audit.*_bak2024"]
        rows: "DELETE FROM mail WHERE note = 'a;b';"
      objectives: {{rto: 4h, rpo: 26h}}
      store:
        bucket: acme-backups
        object_lock: {{mode: COMPLIANCE, days: 30}}
        expect: {{versioning: true, encryption: true, object_lock: true, lifecycle: false, public_access_blocked: true}}
      encryption: {{recipients: [{KEY}, {OTHER_KEY}], identity_file: keys/age.txt}}
      signing: {{key_file: ~/sign.pem, verify_key_file: /etc/opsproof/verify.pem}}
      thresholds:
        minimum_version: "15.10"
        connections: 0.9
        long_transaction: 30m
        wraparound: 1
        growth: 0
        slot_bytes: 1000000000
        clock_skew: 0.5s
        size_fall: 0.25
        unverified_for: 2w
      ping:
        backup: "https://ping.example/{{{{ ping_token }}}}"
"""
ACTIONS = ("restore", "rollback", "deploy", "drill", "cleanup", "recover", "checks")
ALL_OF_IT += "".join(f"        {action}: http://127.0.0.1:9/{action}\n" for action in ACTIONS)


def test_all_that_can_be_asked_for(
    inventory: Callable[..., Path], environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = inventory(one_host(backup_dir="", ping_token="t0ken") + ALL_OF_IT)

    (web,) = load_environment("prod", inventory=path, environ=environ).targets

    assert web.policies == Policies(
        retention=Retention(
            within=timedelta(hours=36),
            last=3,
            daily=7,
            weekly=5,
            monthly=12,
            yearly=2,
            noncurrent=True,
            safety=timedelta(weeks=4),
            parked=timedelta(days=1),
            uploads=timedelta(hours=12),
            logs=timedelta(days=365.25),
        ),
        artifacts=Artifacts(("migration_*", "audit.*_bak2024"), ("DELETE FROM mail WHERE note = 'a;b'",)),
        objectives=Objectives(timedelta(hours=4), timedelta(hours=26)),
        object_lock=ObjectLock("COMPLIANCE", 30),
        bucket=BucketExpectations(True, True, True, False, True),
        sealing=Sealing(
            (KEY, OTHER_KEY),
            str(tmp_path / "keys/age.txt"),
            str(tmp_path / "home/sign.pem"),
            "/etc/opsproof/verify.pem",
        ),
        thresholds=Thresholds(
            minimum_version="15.10",
            connections=0.9,
            long_transaction=timedelta(minutes=30),
            wraparound=1,
            growth=0,
            slot_bytes=1_000_000_000,
            clock_skew=timedelta(seconds=0.5),
            size_fall=0.25,
            unverified_for=timedelta(days=14),
        ),
        ping_urls={
            "backup": "https://ping.example/t0ken",
            **{action: f"http://127.0.0.1:9/{action}" for action in ACTIONS},
        },
    )
    assert web.store == S3StoreSettings("acme-backups", "me-south-1", object_lock=ObjectLock("COMPLIANCE", 30))
    assert (web.sources["retention"], web.sources["store.object_lock"]) == ("hosts.yml", "hosts.yml")


def test_what_is_not_said_has_the_defaults(environ: dict[str, str]) -> None:
    variables = {**environ, "DATABASE_URL": "postgresql://u@h/acme"}
    (alone,) = load_environment("prod", inventory=None, environ=variables).targets
    assert alone.policies == Policies()
    listed = made(
        retention={"daily": 7, "safety": None}, ping=None, store={"bucket": "b", "expect": {"lifecycle": None}}
    )
    assert listed.policies == Policies(retention=Retention(daily=7))
    assert isinstance(listed.store, S3StoreSettings)
    assert listed.store.object_lock is None
    assert not made(retention={"safety": "3d"}).policies.retention.has_rules


def test_one_text_is_a_list_of_one() -> None:
    policies = made(artifacts={"tables": "tmp_*"}, encryption={"recipients": KEY}).policies
    assert (policies.artifacts.tables, policies.sealing.recipients) == (("tmp_*",), (KEY,))


SLIPS = """
      store:
        object_lock:
          mode: hush
          dayz: 30
        expect: {version: true}
      objectives:
        keep: hush
        rto: hush
      encryption:
        recipients:
          - hush
      thresholds:
        size-fall: 0.5
        minimum_version: 15.10
"""


def test_a_slip_is_told_with_the_place_of_the_nested_key(
    inventory: Callable[..., Path], environ: dict[str, str]
) -> None:
    error = refusal(inventory(one_host(retenton="hush") + SLIPS), environ)

    assert error.found.splitlines() == [
        "retenton (hosts.yml:7): did you mean retention?",
        "store.object_lock.mode (hosts.yml:11): should be 'GOVERNANCE' or 'COMPLIANCE'",
        "store.object_lock.days (hosts.yml:10): is missing",
        "store.object_lock.dayz (hosts.yml:12): no such key; did you mean store.object_lock.days?",
        "store.expect.version (hosts.yml:13): no such key; did you mean store.expect.versioning?",
        f"objectives.rto (hosts.yml:16): {SPAN}",
        "objectives.keep (hosts.yml:15): no such key",
        "encryption.recipients (hosts.yml:18): "
        "must be age's public key, age1 and 58 small letters and digits, as age-keygen prints it",
        "thresholds.minimum_version (hosts.yml:22): should be a valid string, not a number or another kind",
        "thresholds.size-fall (hosts.yml:21): no such key; did you mean thresholds.size_fall?",
    ]
    assert {"write days", "write size_fall", "the keys of objectives are rto, rpo"} < set(error.hint.splitlines())
    # 15.10 without quotes is the number 15.1, another version.
    assert 'put minimum_version in quotes: minimum_version: "..."' in error.hint.splitlines()


def test_an_address_before_the_colon_is_no_key_to_show() -> None:
    error = refused(ping={"https://ping.example/hush": "x"})
    assert error.found == "ping (hosts.yml:1): no such key"
    assert error.hint.startswith("the keys of ping are backup, restore,")


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"retention": {"within": 30}}, f"retention.within (hosts.yml:2): {SPAN}"),
        ({"retention": {"parked": "hush"}}, f"retention.parked (hosts.yml:2): {SPAN}"),
        ({"retention": {"within": "0d"}}, f"retention.within (hosts.yml:2): {MOST}"),
        ({"objectives": {"rto": "101y"}}, f"objectives.rto (hosts.yml:2): {MOST}"),
        ({"objectives": {"rto": "9" * 400 + "y"}}, "objectives.rto (hosts.yml:2): is too long"),
        ({"retention": {"last": True}}, "retention.last (hosts.yml:2): must be a number, not a switch"),
        ({"retention": {"last": -1}}, "retention.last (hosts.yml:2): should be greater than or equal to 0"),
        ({"retention": "30d"}, "retention (hosts.yml:1): must be a mapping"),
        ({"thresholds": {"connections": 80}},
         "thresholds.connections (hosts.yml:2): should be less than or equal to 1"),
        ({"thresholds": {"minimum_version": "15.8.1"}},
         "thresholds.minimum_version (hosts.yml:2): must be a version as PostgreSQL counts them, as in 15.8"),
        ({"thresholds": {"slot_bytes": 0}}, "thresholds.slot_bytes (hosts.yml:2): should be greater than 0"),
        ({"store": {"bucket": "b", "object_lock": {"mode": "GOVERNANCE", "days": 0}}},
         "store.object_lock.days (hosts.yml:3): should be greater than or equal to 1"),
        ({"store": {"bucket": "b", "object_lock": True}}, "store.object_lock (hosts.yml:2): must be a mapping"),
        ({"ping": {"backup": "ping.example/hush"}}, "ping.backup (hosts.yml:2): must begin with http:// or https://"),
        ({"ping": {"backup": "https://ping.example/hush\n"}},
         "ping.backup (hosts.yml:2): must be a URL without blanks and control characters"),
    ],
)  # fmt: skip
def test_what_is_no_value_is_refused_with_its_place(variables: Mapping[str, object], found: str) -> None:
    assert refused(**variables).found == found


@pytest.mark.parametrize(
    ("recipients", "problem"),
    [
        ("AGE-SECRET-KEY-1HUSH", "is a private key"),
        ([KEY, KEY + "x"], "must be age's public key"),
        (KEY.upper(), "must be age's public key"),
        (KEY + "\n", "must be age's public key"),
        # No recipient at all is a backup that nobody has encrypted.
        ([], "should have at least 1 item"),
    ],
)
def test_what_is_no_public_key_encrypts_nothing(recipients: object, problem: str) -> None:
    error = refused(encryption={"recipients": recipients})
    assert problem in error.found
    assert error.found.startswith("encryption.recipients (hosts.yml:2): ")
    assert KEY not in str(error)
    assert "HUSH" not in str(error)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("-----BEGIN PRIVATE KEY-----\nhush", "not the key itself"),
        ("AGE-SECRET-KEY-1hush", "not the key itself"),
        (" ", "must be a file's path"),
        ("a\0hush", "must be a file's path"),
        ("~nobody-of-this-name/hush", "an account that this machine does not have"),
    ],
)
def test_a_key_is_named_by_its_file(path: str, problem: str) -> None:
    assert problem in refused(signing={"key_file": path}).found
    assert problem in refused(encryption={"identity_file": path}).found


@pytest.mark.parametrize(
    "asked", [{"object_lock": {"mode": "GOVERNANCE", "days": 1}}, {"expect": {"versioning": True}}]
)
def test_a_folder_cannot_be_locked(asked: dict[str, object]) -> None:
    """Who asks for a lock relies on it."""
    error = refused(store=asked, backup_dir="/srv/backups")
    assert error.summary == f"store.{next(iter(asked))} of web has no effect"
    assert "a folder has neither locks nor settings" in error.expected
