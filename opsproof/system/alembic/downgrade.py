"""What a migration's `downgrade()` will do, read from its text: nothing is imported, nothing is run.

What a text cannot tell (a loop, a function of the application, SQL that is put together) is called opaque: the
rehearsal tells it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from opsproof.system.postgres.statement import Loss, read_statements

# Alembic's operations that take nothing away but what can be made anew.
HARMLESS = frozenset({
    "add_column", "batch_alter_table", "bulk_insert", "create_check_constraint", "create_exclude_constraint",
    "create_foreign_key", "create_index", "create_primary_key", "create_table", "create_table_comment",
    "create_unique_constraint", "drop_constraint", "drop_index", "drop_table_comment", "f", "get_context",
    "inline_literal", "rename_table",
})  # fmt: skip
NOTHING = (ast.Pass, ast.Return)


@dataclass
class Reading:
    """What a downgrade does, as far as its text tells.

    Attributes:
        irreversible: Why it cannot run, in the script's own words; empty where it can.
        is_empty: Whether it does nothing, though the upgrade does something.
        losses: What it takes away, with its data.
        opaque: What the text does not tell, with its line.
        not_atomic: What commits on its own, with its line.
    """

    irreversible: str = ""
    is_empty: bool = False
    losses: list[Loss] = field(default_factory=list)
    opaque: list[str] = field(default_factory=list)
    not_atomic: list[str] = field(default_factory=list)


def read_downgrade(source: str | None) -> Reading:
    """Return what the `downgrade()` of a migration script does.

    Args:
        source: The script's text; None where there is none to read.
    """
    if source is None:
        return Reading(opaque=["the script has no source that can be read"])
    try:
        module = ast.parse(source)
    except SyntaxError as error:
        return Reading(irreversible=f"the script cannot be read: {error}")
    functions = {one.name: one for one in module.body if isinstance(one, ast.FunctionDef)}
    down, up = functions.get("downgrade"), functions.get("upgrade")
    if down is None:
        return Reading(irreversible="it has no downgrade()")
    reading = Reading()
    body = _effective(down.body)
    if not body:
        reading.is_empty = up is not None and bool(_effective(up.body))
        return reading
    reading.irreversible = next((reason for one in body if (reason := _refusal(one))), "")
    if not reading.irreversible:
        _Reader(module, functions, reading).read(down)
    return reading


class _Reader:
    def __init__(self, module: ast.Module, functions: dict[str, ast.FunctionDef], reading: Reading) -> None:
        self._functions = functions
        self._reading = reading
        self._op = {"op"}
        self._followed: set[str] = set()
        self._constants: dict[str, str] = {}
        for one in module.body:
            if isinstance(one, ast.ImportFrom) and one.module == "alembic":
                self._op |= {name.asname or name.name for name in one.names if name.name == "op"}
            if isinstance(one, ast.Assign) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str):
                self._constants |= {name.id: one.value.value for name in one.targets if isinstance(name, ast.Name)}

    def read(self, function: ast.FunctionDef) -> None:
        self._followed.add(function.name)
        batches = dict(self._batches(function))
        for node in ast.walk(function):
            if isinstance(node, ast.Call):
                self._read_call(node, batches)

    def _batches(self, function: ast.FunctionDef) -> Iterator[tuple[str, ast.Call]]:
        for node in ast.walk(function):
            if isinstance(node, ast.With):
                for item in node.items:
                    call, name = item.context_expr, item.optional_vars
                    if isinstance(call, ast.Call) and self._operation(call) == "batch_alter_table":
                        yield (name.id if isinstance(name, ast.Name) else ""), call

    def _operation(self, call: ast.Call) -> str:
        """Return the name of the operation of Alembic that is called, or nothing."""
        function = call.func
        if (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Name)
            and function.value.id in self._op
        ):
            return function.attr
        return ""

    def _read_call(self, call: ast.Call, batches: dict[str, ast.Call]) -> None:
        function = call.func
        if isinstance(function, ast.Attribute) and function.attr == "autocommit_block":
            self._reading.not_atomic.append(f"line {call.lineno}: autocommit_block()")
        elif operation := self._operation(call):
            self._read_operation(operation, call)
        elif (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Name)
            and function.value.id in batches
        ):
            self._read_batch(function.attr, call, batches[function.value.id])
        elif isinstance(function, ast.Name) and function.id in self._functions:
            if function.id not in self._followed:
                self.read(self._functions[function.id])
        elif isinstance(function, ast.Attribute) and function.attr in ("execute", "exec_driver_sql", "scalar"):
            self._read_sql(call, "")
        elif self._is_of_the_application(function):
            self._reading.opaque.append(f"line {call.lineno}: {ast.unparse(function)}()")

    def _read_operation(self, operation: str, call: ast.Call) -> None:
        if operation == "drop_table":
            self._lose("table", call, self._text(call, 0, "table_name"), None)
        elif operation == "drop_column":
            self._lose("column", call, self._text(call, 0, "table_name"), self._text(call, 1, "column_name"))
        elif operation == "execute":
            self._read_sql(call, "sqltext")
        elif operation == "alter_column":
            self._read_alter(call, self._text(call, 0, "table_name"), self._text(call, 1, "column_name"))
        elif _flag(call, "postgresql_concurrently"):
            self._reading.not_atomic.append(f"line {call.lineno}: {operation}() concurrently")
        elif operation not in HARMLESS:
            self._reading.opaque.append(f"line {call.lineno}: op.{operation}()")

    def _read_batch(self, operation: str, call: ast.Call, batch: ast.Call) -> None:
        table = self._text(batch, 0, "table_name")
        if operation == "drop_column":
            self._lose("column", call, table, self._text(call, 0, "column_name"), batch)
        elif operation == "alter_column":
            self._read_alter(call, table, self._text(call, 0, "column_name"))
        elif operation == "execute":
            self._read_sql(call, "sqltext")
        elif operation not in HARMLESS:
            self._reading.opaque.append(f"line {call.lineno}: {operation}() of a batch")

    def _read_alter(self, call: ast.Call, table: str | None, column: str | None) -> None:
        if any(word.arg == "type_" for word in call.keywords):
            self._reading.opaque.append(f"line {call.lineno}: the type of {table or '?'}.{column or '?'} changes")

    def _lose(
        self, kind: Literal["table", "column"], call: ast.Call, table: str | None, column: str | None,
        batch: ast.Call | None = None,
    ) -> None:  # fmt: skip
        schema_word = _keyword(batch or call, "schema")
        schema = None if schema_word is None else self._constant(schema_word)
        # `schema=None` is the search path's; one that is computed is anybody's.
        unknown_schema = schema_word is not None and schema is None and not _is_none(schema_word)
        if table is None or (kind == "column" and column is None) or unknown_schema:
            self._reading.opaque.append(f"line {call.lineno}: drops a {kind} whose name is not written out")
        else:
            self._reading.losses.append(Loss(kind, schema, table, column))

    def _read_sql(self, call: ast.Call, word: str) -> None:
        text = self._text(call, 0, word or "statement")
        if text is None:
            self._reading.opaque.append(f"line {call.lineno}: SQL that is not written out")
            return
        found = read_statements(text)
        self._reading.losses += found.losses
        self._reading.opaque += [f"line {call.lineno}: {one}" for one in found.opaque]
        self._reading.not_atomic += [f"line {call.lineno}: {one}" for one in found.not_atomic]

    def _text(self, call: ast.Call, place: int, word: str) -> str | None:
        node = call.args[place] if len(call.args) > place else _keyword(call, word)
        return None if node is None else self._constant(node)

    def _constant(self, node: ast.expr) -> str | None:
        """Return a text that is written out: as it stands, by a name of the module, or within `sa.text()`."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else None
        if isinstance(node, ast.Name):
            return self._constants.get(node.id)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self._constant(node.left), self._constant(node.right)
            return None if left is None or right is None else left + right
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            return self._constant(node.args[0]) if name in ("text", "DDL", "f") else None
        return None

    def _is_of_the_application(self, function: ast.expr) -> bool:
        """Tell whether a call may do anything: not one of `sa.Column()` and its kind, which only describe."""
        root = function
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Call):
            return False  # looked at by itself
        return not (isinstance(root, ast.Name) and root.id in ("sa", "sqlalchemy", "postgresql", "str", "int", "len"))


def _effective(body: list[ast.stmt]) -> list[ast.stmt]:
    return [
        one
        for one in body
        if not isinstance(one, NOTHING) and not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
    ]


def _refusal(statement: ast.stmt) -> str:
    """Return what a statement says that always raises; nothing for any other."""
    if isinstance(statement, ast.Raise):
        return ast.unparse(statement)
    if isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Constant) and not statement.test.value:
        return ast.unparse(statement)
    return ""


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((word.value for word in call.keywords if word.arg == name), None)


def _flag(call: ast.Call, name: str) -> bool:
    value = _keyword(call, name)
    return isinstance(value, ast.Constant) and bool(value.value)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
