"""The roles that a backup names, and those of them that a server does not have."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator

from opsproof.inspection.finding import Finding
from opsproof.inspection.restores.situation import Situation
from opsproof.system.postgres import catalog
from opsproof.system.postgres.schematext import Schema, plain_name, quoted_name
from opsproof.system.postgres.server import Connection

ACL_ROLES = re.compile(r'\A("(?:[^"]|"")*"|[^=]*)=[^/]*/(.*)\Z', re.S)


def find_missing_roles(connection: Connection, situation: Situation, schema: Schema) -> Iterator[Finding]:
    """Yield what of the backup's roles is not as a restore needs it, with --map-role taken into account."""
    record, there, named = situation.backup.manifest, catalog.read_roles(connection), schema.roles()
    # psql runs plain SQL as it stands.
    unchangeable = named if situation.backup.database_format == "plain" else frozenset[str]()
    needed = set(named)
    if record:
        needed.add(record.database.owner)
        needed.update(one.role for one in record.database.settings if one.role is not None)
        needed.update(*map(_acl_roles, record.database.acl))
    saved = (situation.backup.roles() or b"").decode(errors="surrogateescape")
    for role in sorted(needed):
        name = role if role in unchangeable else situation.roles.get(role, role)
        if role in unchangeable and situation.roles.get(role, role) != role:
            yield _useless(role, situation.roles[role])
        if name in there:
            continue
        other = shlex.quote(f"{role}=ANOTHER")
        if name != role:
            found, hint = f"none, though --map-role puts it in the place of {role!r}", "name a role that is there"
        elif role.startswith("pg_"):
            found, hint = "none; PostgreSQL of another version brings it", f"--map-role {other}"
            hint = "restore into that version" if role in unchangeable else hint
        else:
            found = "none, and the backup owns, grants or sets something for it"
            hint = _create_role(role, saved)
            hint += "" if role in unchangeable else f" or put another in its place: --map-role {other}"
        yield Finding("roles", f"a role {name!r}", found, hint, blocks=True)
    for role in sorted(set(situation.roles) - needed) if record and schema.blocks else ():
        yield Finding(
            "roles", f"a role {role!r} in the backup, for --map-role", f"only {', '.join(sorted(needed))}",
            "leave out that --map-role, or correct its name", blocks=False,
        )  # fmt: skip
    mappings = Counter(one.name for one in schema.with_roles(situation.roles).blocks if one.kind == "USER MAPPING")
    for label in sorted(label for label, count in mappings.items() if count > 1):
        yield Finding(
            "roles", "one user mapping for each role and foreign server", f"{mappings[label]} times {label}",
            "put a role of its own in the place of each with --map-role", blocks=True,
        )  # fmt: skip


def _useless(old: str, new: str) -> Finding:
    return Finding(
        "roles", f"a custom dump, for --map-role to put {new!r} in the place of {old!r}",
        "plain SQL, which names that role itself",
        f"leave out that --map-role; after the restore: REASSIGN OWNED BY {quoted_name(old)} TO {quoted_name(new)};",
        blocks=True,
    )  # fmt: skip


def _create_role(role: str, saved: str) -> str:
    """Return what makes a role, with its attributes where the backup has them."""
    name = quoted_name(role)
    saved_name = f"(?:{re.escape(name)}|{re.escape(role)})"
    pattern = rf"^(?:CREATE ROLE {saved_name};|ALTER ROLE {saved_name} WITH [A-Z -]+?(?= VALID UNTIL|;))"
    lines = [line.rstrip(";") + ";" for line in re.findall(pattern, saved, re.M)]
    return " ".join(lines) or f"CREATE ROLE {name} NOLOGIN;"


def _acl_roles(item: str) -> set[str]:
    match = ACL_ROLES.match(item)
    return {plain_name(role) for role in match.groups() if role} if match else set()
