"""Tables of backups and targets: for people, and as JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from opsproof.archive.catalogue.listing import Entry
from opsproof.report import tables
from opsproof.report.tables import StoreListing
from opsproof.target import DatabaseAddress, DirectoryStoreSettings, Environment, FilestoreSettings, Secret, Target
from tests.lab.manifests import TAKEN, manifest_of, sidecar_of

VERIFIED = Entry("good", "good.zip", 4_200_000, TAKEN, sidecar_of(manifest_of(id="good")))
UNVERIFIED = Entry("bad", "bad.zip", 12, TAKEN, None, "no manifest: never verified")
NAMELESS = Entry("dateless", "dateless.zip", 12, None, None, "no manifest: never verified")
LISTING = StoreListing("erp", "s3://b/acme/backups/", (VERIFIED, UNVERIFIED, NAMELESS), 3)
ERP = Target(
    name="erp",
    environment="prod",
    database=DatabaseAddress("acme", "db.example", 5433, "odoo", Secret("hunter2-and-more")),
    store=DirectoryStoreSettings(Path("/backups")),
    customer="acme",
    filestore=FilestoreSettings(PurePosixPath("/srv/files"), True, "odoo.conf"),
)
PROD = Environment("prod", "hosts.yml", (ERP,))
GROUPS = {"prod": ["erp"], "staging": ["erp-test", "wiki-test"]}


def test_backups_stand_in_columns_under_their_store() -> None:
    lines = tables.backups([LISTING], as_json=False).splitlines()
    assert lines[0] == "erp: s3://b/acme/backups/"
    assert lines[1].split() == ["BACKUP", "TAKEN", "(UTC)", "SIZE", "VERIFIED", "ENVIRONMENT", "KIND", "TARGET"]
    assert lines[2].split() == ["good", "2024-03-05", "01:02:03", "4.2", "MB", "yes", "prod", "scheduled", "erp"]
    assert "NO: no manifest: never verified" in lines[3]
    assert lines[-1] == "... and 3 older ones"
    column = lines[1].index("SIZE")
    assert [line[column:].split("  ")[0] for line in lines[2:5]] == ["4.2 MB", "12 B", "12 B"]


def test_a_store_without_backups_says_so() -> None:
    text = tables.backups([StoreListing("erp", "/backups/", (), 0)], as_json=False)
    assert text.splitlines() == ["erp: /backups/", "  no backup here yet"]


def test_backups_as_json_have_what_a_program_decides_by() -> None:
    (found,) = json.loads(tables.backups([LISTING], as_json=True))
    assert (found["target"], found["location"], found["older"]) == ("erp", "s3://b/acme/backups/", 3)
    good, bad, dateless = found["backups"]
    assert good == {
        "id": "good",
        "name": "good.zip",
        "taken": TAKEN.isoformat(),
        "bytes": 4_200_000,
        "sha256": "a" * 64,
        "verified": True,
        "problem": None,
        "environment": "prod",
        "target": "erp",
        "kind": "scheduled",
        "alembic_revisions": ["4b1f0c7a2d10"],
    }
    assert (bad["verified"], bad["problem"], bad["sha256"]) == (False, "no manifest: never verified", None)
    assert dateless["taken"] is None


def test_targets_stand_in_columns_and_other_environments_below() -> None:
    lines = tables.targets(PROD, GROUPS, as_json=False).splitlines()
    assert lines[0] == "environment prod from hosts.yml"
    assert lines[2].split()[:4] == ["erp", "acme", "db.example:5433", "/srv/files"]
    assert lines[-2:] == ["other environments:", "  staging: erp-test, wiki-test"]


def test_targets_as_json_hold_no_secret() -> None:
    text = tables.targets(PROD, GROUPS, as_json=True)
    found = json.loads(text)
    assert found["environments"] == GROUPS
    assert found["targets"] == [
        {
            "target": "erp",
            "database": "acme",
            "server": "db.example:5433",
            "filestore": "/srv/files",
            "store": "folder /backups, customer acme",
        }
    ]
    assert "hunter2" not in text
