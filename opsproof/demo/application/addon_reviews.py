"""Reviews: what customers say of their orders.

GET  /reviews   a page with the latest
POST /reviews   {"order": "S00042", "stars": 1 to 5, "text": ...}
"""

from __future__ import annotations

import html
import json

from .addons import Addon, Answer, BadRequest
from .records import Records

_SHOWN = 20


def show_reviews(records: Records, _body: bytes) -> Answer:
    """Return the page."""
    with records.transaction() as connection:
        rows = connection.execute(
            "SELECT o.name, r.stars, r.text FROM sale_review r JOIN sale_order o ON o.id = r.order_id "
            "ORDER BY r.id DESC LIMIT %s",
            [_SHOWN],
        ).fetchall()
    cells = "".join(
        f"<tr><td>{html.escape(order)}</td><td>{'★' * stars}</td><td>{html.escape(text)}</td></tr>"
        for order, stars, text in rows
    )
    return Answer(f"<!doctype html><title>Reviews</title><h1>Reviews</h1><table>{cells or 'none yet'}</table>")


def add_review(records: Records, body: bytes) -> Answer:
    """Add a review of an order.

    Raises:
        BadRequest: A field is missing or wrong, or there is no such order.
    """
    try:
        fields = json.loads(body)
        order, stars, text = str(fields["order"]), int(fields["stars"]), str(fields["text"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequest(f"a field is missing or wrong: {error}") from error
    if not 1 <= stars <= 5:
        raise BadRequest("stars go from 1 to 5")
    with records.transaction() as connection:
        row = connection.execute(
            "INSERT INTO sale_review (order_id, stars, text) SELECT id, %s, %s FROM sale_order WHERE name = %s "
            "RETURNING id",
            [stars, text, order],
        ).fetchone()
    if row is None:
        raise BadRequest(f"there is no order {order}")
    return Answer({"id": row[0]}, 201)


def check_reviews(records: Records) -> None:
    """Look whether reviews can be read."""
    with records.transaction() as connection:
        connection.execute("SELECT order_id, stars, text FROM sale_review LIMIT 1")


ADDON = Addon(get={"reviews": show_reviews}, post={"reviews": add_review}, check=check_reviews)
