"""The text of a schema as pg_dump and pg_restore print it: cut into entries, and the roles that each names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from psycopg import sql

NAME = r'(?:"(?:[^"]|"")+"|[^\s",;()]+)'
QUALIFIED = rf"(?:{NAME}\.)?{NAME}"
HEADING = re.compile(r"^-- Name: (.*); Type: ([A-Z ]+); Schema: (.*?); Owner:.*$", re.M)
# What pg_dump prints between two entries, as it turns to another tablespace: it belongs to neither.
BETWEEN = re.compile(r"(?:--.*|SET default_\w+ = .*;|\\unrestrict .*)?")
# Where the names of roles stand in an entry; its last statement says whose it is. What stands before that may be
# anything, such as a function that has statements like it in its text.
OWNER = re.compile(rf" OWNER TO ({NAME});\Z")
OWNER_STATEMENT = re.compile(rf"^ALTER (?:[^\n]|\n(?!ALTER ))* OWNER TO {NAME};\Z", re.M)
OBJECT_OWNER = re.compile(rf"^ALTER LARGE OBJECT (?P<oid>\d+) OWNER TO ({NAME});$", re.M)
GRANT_KINDS = ("ACL", "DEFAULT ACL")
# What pg_restore leaves in with --no-owner and --no-acl, though it names roles.
ROLE_KINDS = ("POLICY", "USER MAPPING")
OBJECT_GRANT = re.compile(rf"^GRANT (ALL|[A-Z,]+) ON LARGE OBJECT (\d+) TO ({NAME})(?: WITH GRANT OPTION)?;$", re.M)
OBJECT_PRIVILEGES = ("SELECT", "UPDATE")
GRANTS = re.compile(
    rf"(?:^SET SESSION AUTHORIZATION| FOR ROLE| TO| FROM) ({NAME})"
    r"(?:(?= IN SCHEMA | GRANT | REVOKE )|(?: WITH GRANT OPTION)?;$)",
    re.M,
)
USER_MAPPING = re.compile(rf"\ACREATE USER MAPPING FOR ({NAME}) SERVER ")
POLICY = re.compile(
    rf"\ACREATE POLICY {NAME} ON {QUALIFIED}(?: AS RESTRICTIVE)?(?: FOR \w+)? TO "
    rf"({NAME}(?:, {NAME})*)(?= USING | WITH CHECK |;)"
)
ROLES = {**dict.fromkeys(GRANT_KINDS, GRANTS), "USER MAPPING": USER_MAPPING, "POLICY": POLICY}
NOT_VALID = re.compile(
    rf"\AALTER (?:TABLE|DOMAIN) (?:ONLY )?({QUALIFIED})\s+ADD CONSTRAINT ({NAME}) .* NOT VALID;", re.S
)
NOBODY = frozenset({"PUBLIC", "CURRENT_USER", "SESSION_USER", "CURRENT_ROLE"})


@dataclass(frozen=True)
class Block:
    """An entry of a schema's text: kind (`TABLE`, `ACL`, ...), schema, name, and the statements."""

    kind: str
    schema: str
    name: str
    body: str

    @property
    def label(self) -> str:
        """What an error calls it."""
        return f"{self.kind} {self.name if self.schema in ('', '-') else f'{self.schema}.{self.name}'}"

    @property
    def is_large_object(self) -> bool:
        """Tell whether it is about large objects, which pg_dump prints only with their content."""
        return self.kind.startswith("BLOB") or self.name.startswith("LARGE OBJECT")

    @property
    def owner(self) -> str:
        """Whose it is, as the text says; empty where it does not."""
        match = OWNER.search(self.body)
        return plain_name(match[1]) if match else ""

    @property
    def needs_roles(self) -> bool:
        """Tell whether it cannot be made without the roles that it names, or is about something that cannot."""
        return self.kind in ROLE_KINDS or (self.kind == "COMMENT" and self.name.startswith("POLICY "))

    def role_statements(self) -> list[str]:
        """Return what is left to be said of it once all is made, but for what names roles."""
        if self.kind in GRANT_KINDS or self.needs_roles:
            return [self.body]
        pattern = OBJECT_OWNER if self.is_large_object else OWNER_STATEMENT
        return [match[0] for match in pattern.finditer(self.body)]

    def role_spans(self) -> Iterator[tuple[int, int]]:
        """Yield where in the body the names of roles stand, quoted or not."""
        owner = OBJECT_OWNER if self.is_large_object else OWNER
        for pattern in (ROLES[self.kind], owner) if self.kind in ROLES else (owner,):
            for match in pattern.finditer(self.body):
                start, stop = match.span(pattern.groups)
                for name in re.compile(NAME).finditer(self.body, start, stop):
                    # A user mapping says `public` where everything else says PUBLIC.
                    if name[0].upper() not in NOBODY:
                        yield name.span()

    def roles(self) -> frozenset[str]:
        """Return the roles that it names."""
        return frozenset(plain_name(self.body[start:stop]) for start, stop in self.role_spans())

    def without_owner(self) -> Block:
        """Return the same without the statement that says whose it is."""
        return replace(self, body=re.sub(rf"\n+ALTER [^\n]* OWNER TO {NAME};\Z", "", self.body))

    def with_roles(self, role_map: Mapping[str, str]) -> Block:
        """Return the same with other roles in the places of some, and every role's name quoted."""
        spans = sorted(self.role_spans())
        old = [plain_name(self.body[start:stop]) for start, stop in spans]
        new = [role_map.get(role, role) for role in old]
        if self.kind == "POLICY" and spans:
            # A server lists them in the order in which it finds its roles, each once.
            listed = ", ".join(map(quoted_name, sorted({*new})))
            return replace(self, body=self.body[: spans[0][0]] + listed + self.body[spans[-1][1] :])
        name = self.name
        if self.kind == "USER MAPPING" and spans:
            name = f"USER MAPPING {new[0]}{name.removeprefix(f'USER MAPPING {old[0]}')}"
        pieces, end = [], 0
        for (start, stop), role in zip(spans, new, strict=True):
            pieces += [self.body[end:start], quoted_name(role)]
            end = stop
        return replace(self, name=name, body="".join([*pieces, self.body[end:]]))


@dataclass(frozen=True)
class Schema:
    """A schema as pg_dump or pg_restore print it; majors of the server and of the pg_dump that it came from."""

    server_major: int
    client_major: int
    blocks: tuple[Block, ...]
    tablespaces: frozenset[str]

    def named(self, kind: str) -> list[str]:
        """Return the names of all entries of a kind."""
        return [block.name for block in self.blocks if block.kind == kind]

    def with_roles(self, role_map: Mapping[str, str]) -> Schema:
        """Return the same with other roles in the places of some, and every role's name quoted."""
        return replace(self, blocks=tuple(block.with_roles(role_map) for block in self.blocks))

    def owners(self) -> frozenset[str]:
        """Return the roles that own something."""
        return frozenset(block.owner for block in self.blocks if block.owner) | {*self.object_owners().values()}

    def roles(self) -> frozenset[str]:
        """Return the roles that own something, are granted something, or have a policy or a user mapping."""
        return frozenset(role for block in self.blocks for role in block.roles())

    def not_valid(self) -> frozenset[str]:
        """Return the constraints that were never validated, as `table constraint`."""
        matches = (NOT_VALID.match(block.body) for block in self.blocks if block.kind.endswith("CONSTRAINT"))
        return frozenset(f"{match[1]} {match[2]}" for match in matches if match)

    def object_owners(self) -> dict[int, str]:
        """Return the owner of each large object."""
        bodies = (block.body for block in self.blocks if block.is_large_object)
        return {int(oid): plain_name(role) for body in bodies for oid, role in OBJECT_OWNER.findall(body)}

    def object_grants(self) -> frozenset[tuple[int, str, str]]:
        """Return large object, role and privilege of each grant to somebody other than the owner."""
        owners = self.object_owners()
        return frozenset(
            (int(oid), plain_name(role), one)
            for block in self.blocks
            if block.is_large_object
            for privileges, oid, role in OBJECT_GRANT.findall(block.body)
            for one in (OBJECT_PRIVILEGES if privileges == "ALL" else privileges.split(","))
            if plain_name(role) != owners.get(int(oid))
        )


def parse_schema(text: str) -> Schema:
    """Cut the text of a schema at its headings."""
    headings = list(HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]

    def major(words: str) -> int:
        match = re.search(rf"^-- Dumped {words} (\d+)", text, re.M)
        return int(match[1]) if match else 0

    spaces = re.findall(rf"^SET default_tablespace = ({NAME});$", text, re.M)
    return Schema(
        server_major=major("from database version"),
        client_major=major("by pg_dump version"),
        blocks=tuple(
            Block(heading[2], heading[3], heading[1], _without_margins(text[heading.end() : end]))
            for heading, end in zip(headings, ends, strict=False)
        ),
        tablespaces=frozenset(plain_name(name) for name in spaces if name != "''"),
    )


def decode_schema(data: bytes) -> str:
    """Return the text, in the encoding that it says it has."""
    match = re.search(rb"^SET client_encoding = '(\w+)';$", data, re.M)
    encoding = re.sub(r"^WIN", "cp", match[1].decode()) if match else "UTF8"
    try:
        return data.decode(encoding)
    except (LookupError, UnicodeError):
        return data.decode(errors="surrogateescape")


def plain_name(quoted: str) -> str:
    """Return a name as it is, of one as SQL writes it."""
    return quoted[1:-1].replace('""', '"') if quoted.startswith('"') else quoted


def plain_label(label: str) -> str:
    """Return a label without quotes that only some major versions need: each has key words of its own."""
    return re.sub(r'(?<!")"([a-z_][a-z0-9_$]*)"(?!")', r"\1", label)


def quoted_name(name: str) -> str:
    """Return a name as SQL takes it, whatever is in it."""
    return sql.Identifier(name).as_string()


def _without_margins(text: str) -> str:
    lines = text.split("\n")
    start, stop = 0, len(lines)
    while start < stop and BETWEEN.fullmatch(lines[start]):
        start += 1
    while stop > start and BETWEEN.fullmatch(lines[stop - 1]):
        stop -= 1
    return "\n".join(lines[start:stop])
