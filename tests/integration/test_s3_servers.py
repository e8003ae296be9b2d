"""What holds on which S3 server, as docs/reference/s3-servers.md has it: the table there is what this run found.

`OPSPROOF_WRITE_SERVERS=1 pytest -m slow tests/integration/test_s3_servers.py` writes it anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.lab.bucket import make_bucket, use_credentials
from tests.lab.localstack_server import running_localstack
from tests.lab.moto_server import S3Server, running_moto
from tests.lab.server_traits import QUESTIONS
from tests.lab.swift_server import running_swift

PAGE = Path(__file__).parents[2] / "docs/reference/s3-servers.md"
SERVERS: dict[str, Callable[[], AbstractContextManager[S3Server]]] = {
    "moto": running_moto,
    "Swift": running_swift,
    "LocalStack": running_localstack,
}
ROW = re.compile(r"^\| (?P<title>.+?) \| (?P<cells>.+) \|$", re.MULTILINE)


def written() -> dict[str, dict[str, str]]:
    """Return the page's table: what it says of each server, by question."""
    rows = {
        row["title"].strip(): [cell.strip() for cell in row["cells"].split("|")]
        for row in ROW.finditer(PAGE.read_text())
    }
    servers = rows.pop("What")
    return {title: dict(zip(servers, cells, strict=True)) for title, cells in rows.items() if set(title) != {"-"}}


def write(server: str, found: dict[str, str]) -> None:
    """Put what was found of a server into the page's table."""
    page, table = PAGE.read_text(), written()
    begin, *_, end = ROW.finditer(page)
    lines = [("What", *SERVERS), ("---", *("---" for _ in SERVERS))]
    for title, answer in found.items():
        known = table.get(title, {}) | {server: answer}
        lines.append((title, *(known.get(each, "?") for each in SERVERS)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rows[1] = rows[1].replace(" ", "-").replace("|-", "| ").replace("-|", " |")
    PAGE.write_text(page[: begin.start()] + "\n".join(rows) + page[end.end() :])


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_the_table_is_what_the_server_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with SERVERS[name]() as server:
        use_credentials(monkeypatch, server)
        found = {question.title: question.ask(make_bucket(server)) for question in QUESTIONS}
    if os.environ.get("OPSPROOF_WRITE_SERVERS"):
        write(name, found)
    assert {title: cells[name] for title, cells in written().items()} == found


def test_the_table_has_every_question_and_every_server_and_no_other() -> None:
    table = written()
    assert list(table) == [question.title for question in QUESTIONS]
    assert {tuple(cells) for cells in table.values()} == {tuple(SERVERS)}
    assert not [title for title, cells in table.items() if "?" in cells.values()]
