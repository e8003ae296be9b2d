"""Answers to reviews; broken, and meant to be: the migration calls the column `answer`, this asks for `reply`.

So a release that has it migrates, starts, and is never healthy.
"""

from __future__ import annotations

from .addons import Addon, Answer
from .records import Records


def count_open(records: Records, _body: bytes) -> Answer:
    """Return how many reviews nobody has answered."""
    with records.transaction() as connection:
        row = connection.execute("SELECT count(*) FROM sale_review WHERE reply IS NULL").fetchone()
    return Answer({"open": row[0] if row else 0})


def check_answers(records: Records) -> None:
    """Look whether answers can be read."""
    count_open(records, b"")


ADDON = Addon(get={"open-reviews": count_open}, check=check_answers)
