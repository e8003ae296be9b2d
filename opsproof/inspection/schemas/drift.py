"""Whether a schema is what its migrations make of an empty database."""

from __future__ import annotations

from dataclasses import replace

from opsproof.inspection.restores.sameness import list_schema_differences
from opsproof.system.postgres.schematext import Block, Schema

# What a server's administrator sets up around an application, and migrations seldom do.
NOT_THE_MIGRATIONS = frozenset({
    "EVENT TRIGGER", "EXTENSION", "FOREIGN DATA WRAPPER", "PUBLICATION", "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA", "SERVER", "SUBSCRIPTION", "SUBSCRIPTION TABLE", "USER MAPPING",
})  # fmt: skip


def list_drift(expected: Schema, found: Schema, version_table: str) -> list[str]:
    """Return a line for each line in which two schemas differ.

    Owners and grants are not compared, nor what the server's administrator sets up around an application; nor the order
    of a table's columns, in which one that was dropped and added again stands last.

    Args:
        expected: What the migrations make.
        found: What is there.
        version_table: Alembic's own table.
    """
    ours, theirs = (_comparable(schema, version_table) for schema in (expected, found))
    return list_schema_differences(ours, theirs, owners=False, grants=False)


def list_extension_drift(expected: Schema, found: Schema) -> list[str]:
    """Return a line for each extension that only one of two schemas has."""
    ours, theirs = ({*schema.named("EXTENSION")} for schema in (expected, found))
    return [f"extension {name} is {'missing' if name in ours else 'extra'}" for name in sorted(ours ^ theirs)]


def is_empty(schema: Schema, version_table: str) -> bool:
    """Tell whether a schema has no tables but Alembic's own."""
    return not [name for name in schema.named("TABLE") if name != version_table]


def _comparable(schema: Schema, version_table: str) -> Schema:
    return replace(
        schema,
        blocks=tuple(
            replace(block, body=_without_order(block.body)) if block.kind == "TABLE" else block
            for block in schema.blocks
            if block.kind not in NOT_THE_MIGRATIONS and not _is_versioning(block, version_table)
        ),
    )


def _is_versioning(block: Block, version_table: str) -> bool:
    # A constraint's name begins with its table's: `alembic_version alembic_version_pkc`; a table's own may have blanks.
    return block.name == version_table or (block.kind != "TABLE" and block.name.startswith(f"{version_table} "))


def _without_order(body: str) -> str:
    return "\n".join(sorted(line.removesuffix(",") for line in body.splitlines()))
