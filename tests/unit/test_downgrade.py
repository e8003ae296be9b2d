"""Reading a downgrade: what goes, what cannot be undone, what commits on its own, and what the text does not tell."""

from __future__ import annotations

from textwrap import dedent, indent

import pytest

from opsproof.system.alembic.downgrade import Reading, read_downgrade
from opsproof.system.postgres.statement import Loss


def read(body: str, upgrade: str = "op.create_table('t')", before: str = "") -> Reading:
    """Read a script whose downgrade has this body."""
    parts = ["import sqlalchemy as sa", "from alembic import op", dedent(before), "def upgrade():",
             indent(dedent(upgrade), "    "), "def downgrade():", indent(dedent(body), "    ")]  # fmt: skip
    return read_downgrade("\n".join(parts) + "\n")


@pytest.mark.parametrize(
    ("body", "losses"),
    [
        ("op.drop_table('orders')", [Loss("table", None, "orders")]),
        ("op.drop_table('orders', schema='sales')", [Loss("table", "sales", "orders")]),
        ("op.drop_table(table_name='orders', schema=None)", [Loss("table", None, "orders")]),
        ("op.drop_column('orders', 'total')", [Loss("column", None, "orders", "total")]),
        ("with op.batch_alter_table('o', schema='s') as b:\n    b.drop_column('x')", [Loss("column", "s", "o", "x")]),
        ("op.execute('DROP TABLE Orders, \"Lines\" CASCADE')",
         [Loss("table", None, "orders"), Loss("table", None, "Lines")]),
        ("op.execute(sa.text('ALTER TABLE s.o DROP a, DROP COLUMN IF EXISTS b'))",
         [Loss("column", "s", "o", "a"), Loss("column", "s", "o", "b")]),
        ("op.execute('DELETE FROM o; -- all\\nUPDATE p SET x = 1; TRUNCATE q')",
         [Loss("rows", None, "o"), Loss("rows", None, "p"), Loss("rows", None, "q")]),
        ("op.execute('WITH gone AS (DELETE FROM o RETURNING *) INSERT INTO p SELECT * FROM gone')",
         [Loss("rows", None, "o")]),
        ("connection = op.get_bind()\nconnection.execute(sa.text('DELETE FROM o'))", [Loss("rows", None, "o")]),
    ],
)  # fmt: skip
def test_what_a_downgrade_takes_away_is_read(body: str, losses: list[Loss]) -> None:
    assert read(body).losses == losses


def test_a_name_of_the_module_and_a_function_of_the_script_are_followed() -> None:
    before = "TABLE = 'orders'\ndef drop():\n    op.drop_table(TABLE)\n    drop()\n"
    reading = read("drop()", before=before)
    assert {one.table for one in reading.losses} == {"orders"}
    assert reading.opaque == []


@pytest.mark.parametrize(
    "body",
    [
        "op.create_table('t', sa.Column('id', sa.Integer, sa.ForeignKey('u.id')))",
        "op.drop_index('i', table_name='t')\nop.drop_constraint('c', 't')",
        "op.alter_column('t', 'c', nullable=True, server_default=sa.text('now()'))",
        "op.execute('DROP TYPE mood; ALTER TYPE other ADD VALUE \\'x\\'')",
        "op.rename_table('a', 'b')",
    ],
)
def test_what_takes_nothing_away_is_told_as_nothing(body: str) -> None:
    assert read(body) == Reading()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("for name in names():\n    op.drop_table(name)", "a table whose name is not written out"),
        ("op.execute(f'DROP TABLE {name}')", "SQL that is not written out"),
        ("op.execute('DO $$ BEGIN DELETE FROM o; END $$')", "DO $$"),
        ("op.execute('SELECT forget_all()')", "FORGET_ALL"),
        ("op.execute('no SQL at all')", "no SQL at all"),
        ("op.execute('DROP SCHEMA s CASCADE')", "DROP SCHEMA s CASCADE"),
        ("op.alter_column('t', 'c', type_=sa.Integer())", "the type of t.c changes"),
        ("Session(op.get_bind()).query(User).delete()", "op.get_bind()"),
        ("application.forget()", "application.forget()"),
        ("op.drop_enum('mood')", "op.drop_enum()"),
        ("op.drop_table('t', schema=settings.schema)", "a table whose name is not written out"),
    ],
)
def test_what_the_text_does_not_tell_is_said_to_be_opaque(body: str, told: str) -> None:
    (first, *_) = [one for one in read(body).opaque if told in one] or read(body).opaque
    assert told in first
    assert first.startswith("line ")


@pytest.mark.parametrize(
    "body",
    [
        "with op.get_context().autocommit_block():\n    op.drop_index('i')",
        "op.drop_index('i', postgresql_concurrently=True)",
        "op.execute('DROP INDEX CONCURRENTLY i')",
        "op.execute('COMMIT')",
        "op.execute('VACUUM t')",
    ],
)
def test_what_commits_on_its_own_is_told(body: str) -> None:
    assert len(read(body).not_atomic) == 1


@pytest.mark.parametrize(
    "body", ["raise Irreversible('never')", "'''Nothing.'''\nassert False", "op.drop_index('i')\nraise Stop"]
)
def test_a_downgrade_that_always_raises_cannot_be_undone(body: str) -> None:
    assert read(body).irreversible


def test_one_that_raises_only_sometimes_can_be() -> None:
    assert not read("if op.get_bind():\n    raise Stop").irreversible


@pytest.mark.parametrize("body", ["pass", "'''Nothing.'''", "...", "return", "return None"])
def test_an_empty_downgrade_is_told_where_the_upgrade_is_not(body: str) -> None:
    assert read(body).is_empty
    assert not read(body, upgrade="pass").is_empty


def test_a_script_without_downgrade_without_source_or_without_sense_is_told() -> None:
    assert read_downgrade("def upgrade():\n    pass\n").irreversible == "it has no downgrade()"
    assert read_downgrade(None).opaque == ["the script has no source that can be read"]
    assert "cannot be read" in read_downgrade("def downgrade(:\n").irreversible
