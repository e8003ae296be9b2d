"""A way down: what its plan says, what tells it from another, and what is refused in which words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from opsproof.errors import MigrationError, OpsproofError, ProofError
from opsproof.inspection.schemas.descent import (
    UNTOUCHED,
    Descent,
    explain_target,
    require_consent_to_drift,
    require_consent_to_loss,
    require_known_stamp,
    require_reversible,
    require_same_plan,
    require_target,
)
from opsproof.inspection.schemas.losses import Counted
from opsproof.system.alembic.downgrade import Reading
from opsproof.system.alembic.history import History, Revision
from opsproof.system.alembic.migrations import Planned, Versioning, VersionTable
from opsproof.system.postgres.statement import Loss


def revision(name: str, *down: str, title: str = "") -> Revision:
    return Revision(name, down, (), (), title, f"/srv/versions/{name}.py")


# a0 - b1 - c1
#         \ c2
HISTORY = History((revision("c2", "b1"), revision("c1", "b1"), revision("b1", "a0", title="Lines"), revision("a0")))
ORDERS = Counted(Loss("table", None, "orders"), 1200)
TOTAL = Counted(Loss("column", "sales", "lines", "total"), 0)
GONE = Counted(Loss("table", None, "gone"), None)


def planned(*undone: str, heads: tuple[str, ...] = ("c1",), **changes: object) -> Planned:
    """Return a plan that undoes these revisions."""
    values: dict[str, object] = {
        "heads": heads,
        "history": HISTORY,
        "target": "a0",
        "undone": tuple(HISTORY.by_id[one] for one in undone),
        "left": HISTORY.after_undoing(heads, undone),
        "sources": {one: f"def downgrade(): {one}" for one in undone},
        "versioning": Versioning(VersionTable(), per_migration=False, transactional=True, driver="psycopg"),
    }
    return Planned(**{**values, **changes})  # type: ignore[arg-type]


def descent(plan: Planned | None = None, *, losses: tuple[Counted, ...] = (), **readings: Reading) -> Descent:
    plan = plan or planned("c1", "b1")
    known = {one.id: Reading() for one in plan.undone}
    return Descent(plan, {**known, **readings}, losses, preview="-- one\nDROP TABLE a;\n\nDROP TABLE b;\n")


def test_a_plan_says_what_it_undoes_what_that_costs_and_what_nobody_knows() -> None:
    dropping = Reading(losses=[Loss("table", None, "orders"), Loss("rows", None, "lines")], opaque=["line 7: SQL"])
    way = descent(losses=(ORDERS, TOTAL, GONE), c1=dropping)
    assert way.lines() == [
        "from c1 down to a0",
        "undo c1: drops orders, changes rows of lines",
        "undo b1 (Lines)",
        "LOSES table orders: 1,200 rows",
        "LOSES table gone: not there now, so counted on the rehearsal",
        "only the rehearsal tells: c1: line 7: SQL",
        "SQL: 2 lines, in the log",
        f"plan {way.digest}",
    ]
    assert way.loses_data
    assert not way.is_at_its_end


def test_a_plan_that_costs_nothing_and_goes_to_the_bottom_says_so() -> None:
    way = replace(descent(planned("c1", "b1", "a0"), losses=(TOTAL,)), preview="", no_preview="two heads")
    assert way.lines()[0] == "from c1 down to base"
    assert way.lines()[-3:] == [
        "no row and no value is known to be lost",
        "SQL unavailable: two heads",
        f"plan {way.digest}",
    ]


def test_branches_that_go_with_it_are_flagged() -> None:
    way = descent(planned("c1", "c2", heads=("c1", "c2")))
    assert "COLLATERAL: this undoes 2 branches: c1, c2" in way.lines()
    assert not [line for line in descent().lines() if "COLLATERAL" in line]


def test_every_reason_against_one_transaction_is_told() -> None:
    versioning = Versioning(VersionTable(), per_migration=True, transactional=False, driver="psycopg")
    way = descent(planned("c1", "b1", versioning=versioning), b1=Reading(not_atomic=["line 3: VACUUM"]))
    assert way.not_atomic == (
        "b1: line 3: VACUUM",
        "env.py: transaction_per_migration",
        "the dialect: DDL that cannot be undone",
    )
    assert descent().not_atomic == ()
    assert descent(planned("c1", versioning=None)).not_atomic == ()
    assert "not one transaction (b1: line 3: VACUUM; env.py" in "\n".join(way.lines())


@pytest.mark.parametrize(
    "other",
    [
        planned("c1", "b1", sources={"c1": "def downgrade(): c1", "b1": "def downgrade(): b1  # other"}),
        planned("c1", "b1", sources={"c1": "def downgrade(): c1", "b1": None}),
        planned("c1", "b1", target="b1"),
        planned("c1", "b1", heads=("c1", "c2")),
        planned("c1"),
        planned("b1", "c1"),
    ],
    ids=["a script's text", "no text", "another target", "another head", "one less", "another order"],
)
def test_another_plan_has_another_digest(other: Planned) -> None:
    assert descent(other).digest != descent().digest


def test_the_same_plan_has_the_same_digest_whatever_was_counted_meanwhile() -> None:
    assert descent(losses=(ORDERS,)).digest == descent().digest
    require_same_plan(descent(losses=(ORDERS,)), descent().digest)
    require_same_plan(descent(), None)


def refusal(kind: type[OpsproofError], check: Callable[[], object], *words: str) -> OpsproofError:
    """Check that something is refused, with these words, in full."""
    with pytest.raises(kind) as caught:
        check()
    error = caught.value
    assert all((error.expected, error.found, error.hint))
    assert error.kept == UNTOUCHED
    for word in words:
        assert word in str(error)
    return error


def test_another_plan_than_the_confirmed_one_is_shown_with_what_to_type() -> None:
    way = descent(losses=(ORDERS,))
    error = refusal(ProofError, lambda: require_same_plan(way, "0badc0ffee00"), "plan 0badc0ffee00", "LOSES table")
    assert error.hint == f"read the new plan, then: --plan={way.digest}"


@pytest.mark.parametrize("target", [None, ""])
def test_no_target_is_refused_with_those_that_there_are(target: str | None) -> None:
    error = refusal(MigrationError, lambda: require_target(HISTORY, ["c1"], target), "Nobody said which revision")
    assert error.hint.splitlines() == ["--to-revision=b1   Lines", "--to-revision=a0   "]


def test_a_relative_target_needs_one_head_or_a_branch() -> None:
    assert require_target(HISTORY, ["c1"], "-1") == "-1"
    assert require_target(HISTORY, ["c1", "c2"], "c1@-1") == "c1@-1"
    error = refusal(MigrationError, lambda: require_target(HISTORY, ["c1", "c2"], "-2"), "-2 is ambiguous", "2 heads")
    assert error.hint.splitlines() == ["--to-revision=c1@-2", "--to-revision=c2@-2"]


def test_a_stamp_is_known_or_refused() -> None:
    require_known_stamp(HISTORY, ["c1", "c2"])
    refusal(
        MigrationError, lambda: require_known_stamp(HISTORY, ["c1", "x9"]), "scripts up to x9", "4 scripts, the new"
    )
    refusal(MigrationError, lambda: require_known_stamp(HISTORY, []), "Alembic was never run on it", "--type=data")


@pytest.mark.parametrize(
    ("target", "heads", "words"),
    [
        ("c1", ["b1"], ("c1 is no revision", "c1 is above the current one: b1", "--to-revision=a0")),
        ("c2", ["c1"], ("c2 is no revision", "a branch that this database is not on: it is at c1", "=b1   Lines")),
        (
            "x@b1",
            ["c1"],
            (
                "x@b1 is no revision",
                "below the current one, but not by way of x@b1: said Alembic",
            ),
        ),
        ("c", ["c1"], ("c is the beginning of 2 revisions", "c2, c1", "--to-revision=c2")),
        ("b11", ["c1"], ("There is no revision b11", "said Alembic", "--to-revision=b1   Lines")),
        ("-9", ["c1"], ("-9 leads to no one revision", "said Alembic", "--to-revision=b1   Lines")),
        ("zzz", ["c1"], ("There is no revision zzz", "said Alembic", "--to-revision=b1   Lines", "--to-revision=a0")),
        ("zzz", ["a0"], ("There is no revision zzz", "--to-revision=base")),
    ],
)
def test_a_target_that_alembic_refuses_is_explained(target: str, heads: list[str], words: tuple[str, ...]) -> None:
    said = MigrationError("no", found="said Alembic\nand more")
    told = explain_target(said, HISTORY, heads, target)
    assert told.kept == UNTOUCHED
    assert all((told.expected, told.found, told.hint))
    for word in words:
        assert word in str(told)


def test_what_cannot_be_undone_is_told_all_at_once() -> None:
    way = descent(c1=Reading(irreversible="raise Never"), b1=Reading(is_empty=True))
    error = refusal(ProofError, lambda: require_reversible(way), "2 of 2 revisions cannot be undone")
    assert error.found.splitlines() == ["c1: raise Never", "b1 (Lines): downgrade() is empty, upgrade() is not"]
    require_reversible(descent())


def test_data_goes_only_by_consent_and_none_is_needed_for_what_is_empty() -> None:
    error = refusal(
        ProofError, lambda: require_consent_to_loss([ORDERS, TOTAL, GONE], False), "destroys data: 1 loss\n"
    )
    assert error.found == "table orders: 1,200 rows"
    refusal(ProofError, lambda: require_consent_to_loss([ORDERS, ORDERS], False), "2 losses")
    require_consent_to_loss([ORDERS], True)
    require_consent_to_loss([TOTAL, GONE], False)


@pytest.mark.parametrize(("count", "words"), [(1, "1 line differs"), (30, "30 lines differ")])
def test_drift_is_accepted_only_by_consent(count: int, words: str) -> None:
    lines = [f"TABLE public.t{number}: extra" for number in range(count)]
    error = refusal(ProofError, lambda: require_consent_to_drift(lines, False, "It"), f"It: {words}", "--allow-drift")
    assert error.found.startswith("TABLE public.t0: extra")
    assert len(error.found.splitlines()) == min(count, 13)
    require_consent_to_drift(lines, True, "It")
    require_consent_to_drift([], False, "It")
