"""Whether a restore makes a copy, and what Odoo's own command says, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opsproof.archive.manifest import Manifest, OdooRecord, ServerRecord, read_sidecar, to_json
from opsproof.inspection.restores.neutralized import Identity
from opsproof.inventory.schema import HostVariables
from opsproof.neutralizing import ALWAYS, BUILT_IN, major_of, own_statements, sink
from opsproof.procedures.restore.neutralizing import Neutralizing, decide
from opsproof.system.hosts.host import Host
from opsproof.target import Connection, Target
from tests.lab.manifests import database_record, manifest_of, sidecar_of
from tests.lab.targets import target_of

SYSTEM = "7300000000000000001"
ELSEWHERE = ServerRecord(version="15.18", version_num=150018, system_identifier="2", client_version="15.18")


@pytest.fixture
def own(tmp_path: Path) -> Target:
    """The target that `manifest_of` describes a backup of."""
    return target_of(tmp_path)


@pytest.mark.parametrize(
    ("manifest", "copies", "why"),
    [
        (manifest_of(), False, "one of prod/erp itself"),
        (manifest_of(server=ELSEWHERE), False, "one of prod/erp itself"),
        (manifest_of(database=database_record(name="old")), False, "one of prod/erp itself"),
        (manifest_of(server=ELSEWHERE, database=database_record(name="old")), True, "one of 'old' on another server"),
        (manifest_of(environment="staging"), True, "one of staging/erp"),
        (manifest_of(target="shop"), True, "one of prod/shop"),
        (manifest_of(customer="somebody"), True, "one of prod/erp, customer somebody"),
    ],
    ids=["own", "on a new server", "renamed", "another", "another environment", "another target", "another customer"],
)
def test_what_is_another_databases_backup_makes_a_copy(own: Target, manifest: Manifest, copies: bool, why: str) -> None:
    purpose = decide(own, SYSTEM, manifest, None, keep_identity=False)
    assert (purpose.copies, purpose.guessed) == (copies, False)
    assert why in purpose.why
    moved = decide(own, SYSTEM, manifest, None, keep_identity=True)
    assert (moved.copies, moved.why) == (False, "--keep-identity says that it moves")


def test_a_backup_that_does_not_say_whose_it_is_counts_as_anothers(own: Target, tmp_path: Path) -> None:
    unknown = decide(own, SYSTEM, None, None, keep_identity=False)
    assert (unknown.copies, unknown.guessed) == (True, True)
    other = decide(own, SYSTEM, None, target_of(tmp_path, environment="staging"), keep_identity=False)
    assert (other.copies, other.guessed, other.why) == (True, False, "the backup is one of staging/erp")
    assert not decide(own, SYSTEM, None, own, keep_identity=False).copies


def test_the_plan_says_whether_and_why(own: Target) -> None:
    host, live = Host(Connection()), Identity("u", "s", "", is_neutralized=False, version="")
    copy = decide(own, SYSTEM, manifest_of(environment="staging"), None, keep_identity=False)
    plan = Neutralizing(own, host, copy, live).plan
    assert plan == (
        "neutralize it before anybody sees it, as the backup is one of staging/erp; --keep-identity leaves it as it is"
    )
    unknown = decide(own, SYSTEM, None, None, keep_identity=False)
    assert "(unless it has the database.uuid of the live one)" in Neutralizing(own, host, unknown, live).plan
    assert "unless" not in Neutralizing(own, host, unknown, None).plan
    kept = decide(own, SYSTEM, manifest_of(), None, keep_identity=False)
    assert Neutralizing(own, host, kept, None).plan == "do not neutralize it: the backup is one of prod/erp itself"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("BEGIN;\nA;\nCOMMIT;\n", "A;"),
        (
            "a warning\nBEGIN;\nDO $$\n BEGIN\n A;\n END; $$;\nB;\nCOMMIT;\nanother\n",
            "DO $$\n BEGIN\n A;\n END; $$;\nB;",
        ),
        ("BEGIN;\nA;\n", ""),
        ("A;\nCOMMIT;\n", ""),
        ("BEGIN;\nCOMMIT;\n", ""),
        ("COMMIT;\nA;\nBEGIN;\n", ""),
        ("", ""),
    ],
)
def test_odoos_own_statements_are_taken_out_of_their_transaction(output: str, expected: str) -> None:
    assert own_statements(output) == expected


@pytest.mark.parametrize(
    ("version", "major"),
    [("14.0.1.3", 14), ("16.0.1.3", 16), ("saas~17.2.1.3", 17), ("19", 19), ("", None), ("x", None), ("1.0.2", 1)],
)
def test_the_major_version_is_that_of_base(version: str, major: int | None) -> None:
    assert major_of(version) == major


def test_every_statement_needs_the_columns_that_it_names() -> None:
    for measure in (*ALWAYS, *BUILT_IN):
        assert f"public.{measure.table}" in measure.sql
        assert measure.columns
        assert all(column in measure.sql for column in measure.columns)


def test_a_table_without_its_columns_gets_no_mail_server() -> None:
    assert sink(["name", "smtp_host", "smtp_port"]) == {}
    assert sink(["id", "name", "smtp_host", "smtp_port", "active"])["smtp_host"] == "invalid"


def test_a_manifest_without_a_word_of_odoo_is_read() -> None:
    content = json.loads(to_json(sidecar_of()))
    del content["manifest"]["odoo"]
    assert read_sidecar(json.dumps(content).encode(), "x").manifest.odoo is None


def test_odoo_is_shown_without_what_a_terminal_would_obey() -> None:
    assert OdooRecord(version="14.0.1.3", modules={"base": "1", "sale": "2"}).shown == "Odoo 14.0.1.3 with 2 modules"
    assert OdooRecord(version="\x1b[2J", modules={}).shown == "Odoo [2J with 0 modules"


def test_the_inventory_names_odoo_and_further_statements() -> None:
    variables = HostVariables.model_validate(
        {"odoo_bin": "none", "web_base_url": "https://staging.example.com", "neutralize": "DELETE FROM t"}
    )
    assert (variables.odoo_bin, variables.neutralize) == ("none", ("DELETE FROM t",))
    assert HostVariables.model_validate({"neutralize": ["A", "B"]}).neutralize == ("A", "B")


@pytest.mark.parametrize(
    "wrong", [{"odoo_bin": "odoo"}, {"web_base_url": "staging"}, {"neutralize": [""]}, {"neutralize": [{"sql": "A"}]}]
)
def test_what_the_inventory_says_wrongly_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HostVariables.model_validate(wrong)
