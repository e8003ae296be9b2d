"""Two readings of the same data: equal, or an error that names what is not."""

from __future__ import annotations

import pytest

from opsproof.errors import ProofError
from opsproof.inspection.restores.sameness import compare_contents, compare_objects, require_attachments
from opsproof.system.postgres.copytext import Content

READING = {"public.a": Content(2, "f" * 32), "public.b": Content(0, "0" * 32)}


def test_the_same_reading_twice_counts_its_tables() -> None:
    assert compare_contents(READING, dict(reversed(READING.items())), "the dump") == 2
    assert compare_contents({}, {}, "the dump") == 0


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ({**READING, "public.a": Content(3, "f" * 32)}, "public.a: 2 rows (ffffffffffff) in the snapshot, 3 rows"),
        ({**READING, "public.a": Content(2, "e" * 32)}, "2 rows (eeeeeeeeeeee) in the dump"),
        ({**READING, "public.a": Content(2, None)}, "2 rows in the dump"),
        ({"public.a": READING["public.a"]}, "public.b: 0 rows (000000000000) in the snapshot, nothing in the dump"),
        ({**READING, "public.c": Content(1, "1" * 32)}, "public.c: nothing in the snapshot, 1 rows"),
    ],
    ids=["rows", "fingerprint", "no fingerprint", "missing", "more"],
)
def test_a_table_that_differs_is_named_with_both_readings(found: dict[str, Content], named: str) -> None:
    with pytest.raises(ProofError, match="in the dump differ") as caught:
        compare_contents(READING, found, "the dump")
    assert named in caught.value.found
    assert caught.value.kept == "no backup was written"


def test_many_differences_are_counted_and_ten_shown() -> None:
    expected = {f"public.t{number:02}": Content(number, "x") for number in range(25)}
    with pytest.raises(ProofError, match="25 tables") as caught:
        compare_contents(expected, {}, "the dump")
    lines = caught.value.found.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 15 more"


def test_large_objects_are_compared_by_size_and_content() -> None:
    objects = {16401: Content(5, "a" * 64)}
    assert compare_objects(objects, dict(objects)) == 1
    with pytest.raises(ProofError, match="differ") as caught:
        compare_objects(objects, {16401: Content(5, "b" * 64)})
    assert "large object 16401" in caught.value.found


def test_attachments_that_are_all_there_are_fine() -> None:
    require_attachments(3, (), (), 0, "odoo.conf")


def test_a_lost_attachment_is_named_with_where_to_look() -> None:
    with pytest.raises(ProofError, match="2 of 9 attachments") as caught:
        require_attachments(9, ("ab/abc",), ("cd/cde",), 1, "data_dir in /etc/odoo.conf")
    assert caught.value.found.splitlines() == ["ab/abc is missing", "cd/cde is damaged"]
    assert "data_dir in /etc/odoo.conf" in caught.value.hint
    assert "accept_missing_files: 2" in caught.value.hint


def test_as_many_losses_as_were_accepted_are_fine() -> None:
    require_attachments(9, ("ab/abc",), ("cd/cde",), 2, "odoo.conf")
    with pytest.raises(ProofError):
        require_attachments(9, ("ab/abc", "x/x"), ("cd/cde",), 2, "odoo.conf")
