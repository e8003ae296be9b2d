"""Collation rules in a manifest: written, read back, told to who restores by hand, and not asked of old manifests."""

from __future__ import annotations

import json

import pytest

from opsproof.archive.manifest import read_sidecar, to_json
from opsproof.archive.writing.restoretext import restore_text
from tests.lab.manifests import database_record, manifest_of, sidecar_of


@pytest.mark.parametrize("rules", ["&a < g", "", None])
def test_rules_are_read_as_they_were_written(rules: str | None) -> None:
    sidecar = sidecar_of(manifest_of(database=database_record(icu_rules=rules)))
    assert read_sidecar(to_json(sidecar), "x").manifest.database.icu_rules == rules


def test_a_manifest_from_before_they_were_written_does_not_say() -> None:
    written = json.loads(to_json(sidecar_of()))
    del written["manifest"]["database"]["icu_rules"]
    read = read_sidecar(json.dumps(written).encode(), "x")
    assert read == sidecar_of()
    assert read.manifest.database.icu_rules is None


@pytest.mark.parametrize(("rules", "told"), [("&a < 'g'", True), ("", False), (None, False)])
def test_whoever_restores_by_hand_is_told(rules: str | None, told: bool) -> None:
    database = database_record(locale_provider="icu", locale="de-DE", icu_rules=rules)
    text = restore_text(manifest_of(database=database))
    assert "ICU_LOCALE" in text
    assert ("ICU_RULES" in text) == told
    if told:
        assert "&a < " in text
