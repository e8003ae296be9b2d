"""The tree of exceptions, and how an error reads."""

from __future__ import annotations

import inspect
import re

import pytest

from opsproof import errors
from opsproof.errors import Interrupted, OpsproofError, StoreDenied

TREE_LINE = re.compile(r"^ {4}(?P<depth>[ |]*)(?:\+-- )?(?P<name>[A-Z]\w+)", re.MULTILINE)


def exceptions() -> dict[str, type[BaseException]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return {name: one for name, one in found if issubclass(one, BaseException)}


def test_every_part_stands_on_a_titled_line_of_its_own() -> None:
    error = OpsproofError("It failed", expected="this", found="that", kept="all", hint="type x")
    assert str(error).splitlines() == [
        "It failed",
        "  expected: this",
        "  found:    that",
        "  kept:     all",
        "  hint:     type x",
    ]


def test_a_part_that_was_not_given_is_left_out() -> None:
    assert str(OpsproofError("It failed", hint="type x")).splitlines() == ["It failed", "  hint:     type x"]
    assert str(OpsproofError("It failed")) == "It failed"


def test_further_lines_of_a_part_are_aligned_with_its_first() -> None:
    lines = str(OpsproofError("It failed", found="one\ntwo\nthree")).splitlines()
    columns = [line.index(word) for line, word in zip(lines[1:], ("one", "two", "three"), strict=True)]
    assert columns == [12, 12, 12]


def test_the_parts_can_be_read_one_by_one() -> None:
    error = StoreDenied("No", expected="a", found="b", kept="c", hint="d")
    assert (error.summary, error.expected, error.found, error.kept, error.hint) == ("No", "a", "b", "c", "d")
    assert error.args == ("No",)


def test_the_docstring_draws_the_tree_that_the_classes_make() -> None:
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for match in TREE_LINE.finditer(errors.__doc__ or ""):
        depth, name = match.start("name"), match["name"]
        depth -= match.start()
        while path and path[-1][0] >= depth:
            path.pop()
        if path:
            parents[name] = path[-1][1]
        path.append((depth, name))
    classes = {name: one.__bases__[0].__name__ for name, one in exceptions().items()}
    assert parents == {name: parent for name, parent in classes.items() if parent in classes}
    assert set(parents) | {"OpsproofError", "Interrupted"} == set(classes)


def test_an_interruption_is_not_swallowed_by_except_exception() -> None:
    with pytest.raises(Interrupted):
        try:
            raise Interrupted("SIGTERM arrived")
        except Exception:
            pytest.fail("an interruption was taken for an ordinary error")
