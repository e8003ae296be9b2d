"""A verification of real backups that were damaged: each fault is found, recorded, and the one before is chosen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest

from opsproof.archive.catalogue.choosing import choose_backup
from opsproof.archive.manifest import Manifest
from opsproof.errors import ProofError, StoreError
from opsproof.procedures.verify.procedure import require_passed
from tests.lab.bundles import Piece
from tests.lab.verifying import Shelf, rebuild

pytest_plugins = ["tests.lab.shelf"]

Change = Callable[[dict[str, Piece]], None]


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
    assert shelf.chosen() == shelf.older.id
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
