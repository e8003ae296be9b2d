"""What is to be restored, and where: all that a look at what would be in its way needs to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from opsproof.system.postgres.dump import Clients
from opsproof.system.postgres.server import DatabaseFacts, Server
from opsproof.target import Target


class _Extension(Protocol):
    name: str
    version: str


class _Setting(Protocol):
    role: str | None


class _Origin(Protocol):
    version: str
    version_num: int


class DatabaseShape(Protocol):
    """What it takes to make a database anew, as far as it matters here."""

    owner: str
    encoding: str
    collate: str
    ctype: str
    locale_provider: str
    locale: str | None
    icu_rules: str | None
    bytes: int
    acl: tuple[str, ...]

    @property
    def settings(self) -> Sequence[_Setting]:
        """What sessions in it begin with."""

    @property
    def extensions(self) -> Sequence[_Extension]:
        """What it has installed."""


class Record(Protocol):
    """What a manifest says, as far as it matters here."""

    @property
    def server(self) -> _Origin:
        """The server that it came from."""

    @property
    def database(self) -> DatabaseShape:
        """What it takes to make the database anew."""


class _Member(Protocol):
    path: str
    bytes: int


class Material(Protocol):
    """An opened backup, as far as it matters here."""

    @property
    def manifest(self) -> Record | None:
        """What it says of itself; None where others made it."""

    @property
    def database_format(self) -> str:
        """`custom` or `plain`."""

    @property
    def database_bytes(self) -> int:
        """Bytes of the dump."""

    @property
    def files_bytes(self) -> int:
        """Bytes of the files."""

    def file_members(self) -> Iterable[_Member]:
        """Yield the files."""

    def roles(self) -> bytes | None:
        """Return the roles as SQL."""


@dataclass(frozen=True)
class Situation:
    """What is to be restored, and where.

    `live` is None where no database is live yet; `dump` is the extracted dump, on the host, and `unpacked` the same on
    this machine, where that is another one; `roles` maps roles of the backup to those that take their place.
    """

    target: Target
    server: Server
    live: DatabaseFacts | None
    clients: Clients
    backup: Material
    dump: Path
    roles: Mapping[str, str] = field(default_factory=dict)
    in_place: bool = False
    unpacked: Path | None = None
