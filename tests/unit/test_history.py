"""The graph of revisions: what a database has been through, and what is left when some of it is undone."""

from __future__ import annotations

from opsproof.system.alembic.history import History, Revision


def revision(name: str, *down: str, depends_on: tuple[str, ...] = (), title: str = "") -> Revision:
    return Revision(name, down, depends_on, (), title, f"/srv/versions/{name}.py")


# a - b - c1 - d1
#       \ c2 ----- m (merge of d1 and c2) - e
HISTORY = History((
    revision("e5", "m4"), revision("m4", "d1", "c2"), revision("d1", "c1"), revision("c2", "b0"),
    revision("c1", "b0"), revision("b0", "a0", title="Orders and lines"), revision("a0"),
))  # fmt: skip


def test_a_database_has_been_through_everything_below_its_heads() -> None:
    assert HISTORY.applied(["c2", "c1"]) == {"a0", "b0", "c1", "c2"}
    assert HISTORY.applied([]) == frozenset()


def test_undoing_a_merge_leaves_both_branches() -> None:
    assert HISTORY.after_undoing(["e5"], ["e5", "m4"]) == ("c2", "d1")


def test_undoing_everything_leaves_nothing() -> None:
    assert HISTORY.after_undoing(["a0"], ["a0"]) == ()


def test_what_another_branch_depends_on_is_no_head() -> None:
    history = History((revision("x2", depends_on=("y1",)), revision("y1")))
    assert history.heads_of(["x2", "y1"]) == ("x2",)
    assert history.after_undoing(["x2"], ["x2"]) == ("y1",)


def test_several_branches_that_go_are_named_and_one_is_not() -> None:
    assert HISTORY.collateral(["d1", "c1", "c2"]) == ("c2", "d1")
    assert HISTORY.collateral(["e5", "m4", "d1", "c1", "c2"]) == ()


def test_the_nearest_are_found_by_beginning_spelling_and_title() -> None:
    assert HISTORY.nearest("c") == ("c2", "c1")
    assert HISTORY.nearest("b00") == ("b0",)
    assert HISTORY.nearest("lines") == ("b0",)
    assert HISTORY.nearest("nothing like it") == ()
