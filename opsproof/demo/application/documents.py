"""The sample data's attachments: text invoices, tables as CSV, and scans as PNG, some 10 MB together."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_SCAN_SIDE = 150  # pixels


@dataclass(frozen=True)
class Document:
    """One attachment: its row's fields and its content."""

    name: str
    order: int
    mimetype: str
    content: bytes


def draw_documents(chance: random.Random, count: int, *, orders: int) -> Iterator[Document]:
    """Yield documents, half of them invoices, a quarter tables, a quarter scans."""
    for number in range(1, count + 1):
        order = chance.randrange(1, orders + 1)
        kind = number % 4
        if kind < 2:
            yield Document(f"INV-{number:05d}.txt", order, "text/plain", _invoice(chance, number, order))
        elif kind == 2:
            yield Document(f"stock-{number:05d}.csv", order, "text/csv", _table(chance))
        else:
            yield Document(f"delivery-note-{number:05d}.png", order, "image/png", _scan(chance))


def _invoice(chance: random.Random, number: int, order: int) -> bytes:
    positions = [
        f"{position:>4}  item {chance.randrange(10**6):06d}  {chance.randrange(1, 40)} x {chance.randrange(1, 500)}.00"
        for position in range(1, chance.randrange(30, 120))
    ]
    return "\n".join([f"Invoice INV-{number:05d}", f"Order S{order:05d}", "", *positions, ""]).encode()


def _table(chance: random.Random) -> bytes:
    rows = [
        f"{row},{chance.randrange(10**8):08d},{chance.random() * 1000:.2f},{chance.choice('ABCDE')}"
        for row in range(chance.randrange(400, 1_600))
    ]
    return "\n".join(["row,product,stock,shelf", *rows, ""]).encode()


def _scan(chance: random.Random) -> bytes:
    """Return a real PNG of noise, which compresses no further: what photographs do to a backup."""
    rows = b"".join(b"\0" + chance.randbytes(_SCAN_SIDE * 3) for _ in range(_SCAN_SIDE))
    header = struct.pack(">IIBBBBB", _SCAN_SIDE, _SCAN_SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
