"""The index: a cache, in the store itself, of what the sidecars there say, so that nobody has to read thousands.

`index/YYYY-MM-DD_HH-MM-SS-RANDOM.json.gz` says of each sidecar how it looked in the listing (name, size, time, ETag),
and what stood in it. What looks otherwise now, or is not in the index, is read by itself. An index that cannot be read
or that a newer opsproof wrote is as good as none; nothing but time is lost with it.
"""

from __future__ import annotations

import gzip
import re
import secrets
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from opsproof.archive.catalogue.listing import READ_AT_ONCE
from opsproof.archive.manifest import STAMP, Kind, Sidecar, read_sidecar
from opsproof.archive.names import SIDECAR, sidecar_name
from opsproof.errors import ArchiveError, StoreDenied, StoreError, StoreUnreachable
from opsproof.system.store import Listing, Store, StoredObject

FOLDER = "index/"
NAME = re.compile(r"index/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-[0-9a-f]{8}\.json\.gz")
FORMAT_VERSION = 1
# Ten thousand backups take 4 MB unpacked; what is far above that was not written here.
MOST_PACKED, MOST_UNPACKED = 64 << 20, 512 << 20
TRIED = 3


class Said(BaseModel):
    """What a sidecar says of its backup. `name` is the bundle's; `taken` is in UTC."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    kind: Kind
    environment: str
    target: str
    customer: str
    database: str
    system_identifier: str
    taken: datetime
    name: str
    bytes: int
    sha256: str


class Line(BaseModel):
    """A sidecar as it looked in the listing, and what it says."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sidecar: str
    bytes: int
    modified: datetime
    etag: str | None
    said: Said

    def looks_like(self, listed: Listing) -> bool:
        """Tell whether the sidecar in a listing is still this one."""
        seen = (self.sidecar, self.bytes, self.modified, self.etag)
        return seen == (listed.name, listed.bytes, listed.modified, listed.etag)


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal["opsproof-index"] = "opsproof-index"
    format_version: Literal[1] = 1
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Contents:
    """What is in a store.

    Attributes:
        listed: All objects by their names, but for those in folders of the store: a place for all customers has
            those of each.
        lines: Of each sidecar that can be read, by the backup's id.
        problems: Why a sidecar cannot be read, by the backup's id.
        gone: What the index knows of backups whose sidecar is not there any more, by id.
        read: How many sidecars had to be read by themselves.
    """

    listed: Mapping[str, Listing]
    lines: Mapping[str, Line]
    problems: Mapping[str, str]
    gone: Mapping[str, Line]
    read: int

    @property
    def indexes(self) -> list[Listing]:
        """The index objects, the newest first."""
        found = [one for name, one in self.listed.items() if NAME.fullmatch(name)]
        return sorted(found, key=lambda one: one.name, reverse=True)


def read_contents(store: Store) -> Contents:
    """List a store, and find out what its sidecars say: from the index where that is true, else from themselves.

    Raises:
        StoreError: The store cannot be listed, or a sidecar that is there cannot be read.
    """
    listed = {one.name: one for one in store.list() if "/" not in one.name or one.name.startswith(FOLDER)}
    known = _read_index(store, listed)
    lines: dict[str, Line] = {}
    unread = []
    for name, one in listed.items():
        if name.endswith(SIDECAR) and "/" not in name:
            line = known.get(name)
            if line is not None and line.looks_like(one):
                lines[line.said.id] = line
            else:
                unread.append(one)
    problems = {}
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        for one, found in zip(unread, pool.map(lambda one: _read_line(store, one), unread), strict=True):
            backup = one.name.removesuffix(SIDECAR)
            if isinstance(found, Line):
                lines[backup] = found
            elif found:
                problems[backup] = found
    gone = {line.said.id: line for name, line in known.items() if name not in listed}
    return Contents(listed, lines, problems, gone, len(unread))


def write_index(store: Store, lines: Iterable[Line], now: datetime) -> StoredObject:
    """Write an index of these sidecars; the older ones are not touched.

    Raises:
        StoreError: The store refused.
    """
    index = _Index(lines=tuple(sorted(lines, key=lambda line: line.sidecar)))
    name = f"{FOLDER}{now.astimezone(UTC).strftime(STAMP)}-{secrets.token_hex(4)}.json.gz"
    data = gzip.compress(index.model_dump_json().encode(), compresslevel=6, mtime=0)
    return store.put_small(name, data, locked=False)


def say(sidecar: Sidecar) -> Said:
    """Return what an index keeps of a sidecar."""
    manifest = sidecar.manifest
    taken = manifest.taken if manifest.taken.tzinfo else manifest.taken.replace(tzinfo=UTC)
    return Said(
        id=manifest.id,
        kind=manifest.kind,
        environment=manifest.environment,
        target=manifest.target,
        customer=manifest.customer,
        database=manifest.database.name,
        system_identifier=manifest.server.system_identifier,
        taken=taken.astimezone(UTC),
        name=sidecar.name,
        bytes=sidecar.bytes,
        sha256=sidecar.sha256,
    )


def _read_line(store: Store, listed: Listing) -> Line | str:
    """Return a sidecar's line; or why there is none, which is nothing where it has just been removed."""
    backup = listed.name.removesuffix(SIDECAR)
    try:
        sidecar = read_sidecar(store.get_small(listed.name), listed.name)
    except ArchiveError as error:
        return error.summary
    except (StoreDenied, StoreUnreachable):
        raise
    except StoreError:
        if store.exists(listed.name):
            raise
        return ""
    if sidecar.manifest.id != backup:
        return f"its manifest is that of {sidecar.manifest.id}"
    return Line(sidecar=listed.name, bytes=listed.bytes, modified=listed.modified, etag=listed.etag, said=say(sidecar))


def _read_index(store: Store, listed: Mapping[str, Listing]) -> dict[str, Line]:
    names = sorted((name for name in listed if NAME.fullmatch(name)), reverse=True)
    for name in names[:TRIED]:
        if listed[name].bytes > MOST_PACKED:
            continue
        try:
            data = store.get_small(name)
        except (StoreDenied, StoreUnreachable):
            raise
        except StoreError:
            continue  # another run has just put a newer one in its place
        lines = _parse(data)
        if lines is not None:
            return {line.sidecar: line for line in lines}
    return {}


def _parse(data: bytes) -> Sequence[Line] | None:
    """Return what an index says; None where it is none, is cut, is damaged, or of another format."""
    unpack = zlib.decompressobj(wbits=31)
    try:
        text = unpack.decompress(data, MOST_UNPACKED)
        if not unpack.eof or unpack.unused_data:
            return None
        lines = _Index.model_validate_json(text).lines
    except (zlib.error, ValidationError):
        return None
    is_sound = all(sidecar_name(line.said.id) == line.sidecar and line.said.taken.tzinfo for line in lines)
    return lines if is_sound else None
