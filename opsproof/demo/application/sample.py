"""The sample data's rows: the same on every machine, drawn from a fixed seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from .documents import Document, draw_documents

Row = tuple[object, ...]

CONTACTS = 2_000
ORDERS = 5_000
MESSAGES = 10_000
ATTACHMENTS = 400

_SEED = 20_240_115
_FIRST_DAY = datetime(2022, 1, 3, 8, 0)  # noqa: DTZ001 - Odoo's columns are UTC without time zone
_GIVEN = (
    "Amal",
    "Anna",
    "Björn",
    "Carlos",
    "Chloé",
    "Dmitri",
    "Élodie",
    "Fatima",
    "Giulia",
    "Hanna",
    "Ivan",
    "João",
    "Karim",
    "Lena",
    "Łukasz",
    "Mehmet",
    "Nadia",
    "Olga",
    "Pedro",
    "Qiang",
    "Rania",
    "Søren",
    "Tomás",
    "Ulrike",
    "Víctor",
    "Wei",
    "Ximena",
    "Yusuf",
    "Zoë",
    "Ángel",
)
_FAMILY = (
    "Al-Khalifa",
    "Andersen",
    "Becker",
    "Costa",
    "D'Amico",
    "Eriksson",
    "Fischer",
    "García",
    "Haddad",
    "Ibrahim",
    "Jansen",
    "Kowalski",
    "Lefèvre",
    "Müller",
    "Novák",
    "O'Brien",
    "Petrov",
    "Quinn",
    "Rossi",
    "Schmidt",
    "Tanaka",
    "Ueda",
    "Vargas",
    "Weber",
    "Xu",
    "Öztürk",
    "Zieliński",
)
_CITIES = (("10115", "Berlin"), ("75011", "Paris"), ("317", "Manama"), ("28004", "Madrid"), ("00-001", "Warszawa"))
_STREETS = ("Market Street", "Rue de la Paix", "Hauptstraße", "Calle Mayor", "Harbour Road", "Mill Lane")
_TRADES = ("Trading", "Logistics", "Foods", "Textiles", "Electronics", "Interiors")
_PRODUCTS = (
    ("Office Chair", "129.00"),
    ("Standing Desk", "489.50"),
    ("Desk Lamp", "39.90"),
    ("Filing Cabinet", "215.00"),
    ("Whiteboard 120 x 90", "84.25"),
    ("Monitor Arm", "99.95"),
    ("Cable Tray", "18.40"),
    ("Delivery", "25.00"),
)
_STATES = ("sale", "sale", "sale", "sent", "draft", "cancel")
_REMARKS = (
    "Please deliver before noon.",
    "The customer asks for a discount of 5 % on the next order.",
    "Invoice sent by e-mail; a copy is attached.",
    "Called twice, nobody answered. Trying again tomorrow.",
    "Goods received complete and in good order.",
    "Two of the chairs arrived damaged, replacements are on their way.",
)


@dataclass(frozen=True)
class Sample:
    """The rows of each table in the order of its columns, and the files that the attachments name."""

    contacts: list[Row] = field(default_factory=list)
    orders: list[Row] = field(default_factory=list)
    lines: list[Row] = field(default_factory=list)
    messages: list[Row] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)


def draw_sample() -> Sample:
    """Return the whole sample; every call returns the same."""
    chance = random.Random(_SEED)  # noqa: S311 - made-up data must be the same every time
    contacts = list(_contacts(chance))
    lines: list[Row] = []
    orders = list(_orders(chance, lines))
    messages = list(_messages(chance))
    documents = list(draw_documents(chance, ATTACHMENTS, orders=ORDERS))
    return Sample(contacts, orders, lines, messages, documents)


def _contacts(chance: random.Random) -> Iterator[Row]:
    """Yield id, name, email, phone, street, zip, city, is_company, comment, create_date, parent_id."""
    companies: list[int] = []
    for number in range(1, CONTACTS + 1):
        given, family = chance.choice(_GIVEN), chance.choice(_FAMILY)
        is_company = number % 8 == 1
        name = f"{family} {chance.choice(_TRADES)}" if is_company else f"{given} {family}"
        parent = chance.choice(companies) if companies and not is_company and chance.random() < 0.6 else None
        if is_company:
            companies.append(number)
        zip_code, city = chance.choice(_CITIES)
        yield (
            number,
            name,
            f"contact{number}@example.com",
            f"+49 30 {chance.randrange(10**6, 10**7)}",
            f"{chance.choice(_STREETS)} {chance.randrange(1, 180)}",
            zip_code,
            city,
            is_company,
            chance.choice(_REMARKS) if chance.random() < 0.2 else None,
            _FIRST_DAY + timedelta(minutes=number * 37),
            parent,
        )


def _orders(chance: random.Random, lines: list[Row]) -> Iterator[Row]:
    """Yield id, name, partner_id, state, date_order, note, amount_total; append the orders' lines.

    A line is id, order_id, sequence, name, quantity, price_unit.
    """
    for number in range(1, ORDERS + 1):
        total = Decimal(0)
        for position in range(chance.randrange(1, 5)):
            product, price = chance.choice(_PRODUCTS)
            quantity = chance.randrange(1, 13)
            total += quantity * Decimal(price)
            lines.append((len(lines) + 1, number, (position + 1) * 10, product, quantity, Decimal(price)))
        yield (
            number,
            f"S{number:05d}",
            chance.randrange(1, CONTACTS + 1),
            chance.choice(_STATES),
            _FIRST_DAY + timedelta(minutes=number * 173 + chance.randrange(120)),
            chance.choice(_REMARKS) if chance.random() < 0.3 else None,
            total,
        )


def _messages(chance: random.Random) -> Iterator[Row]:
    """Yield id, model, res_id, message_type, subject, body, email_from, author_id, date."""
    for number in range(1, MESSAGES + 1):
        order = chance.randrange(1, ORDERS + 1)
        author = chance.randrange(1, CONTACTS + 1)
        remarks = "".join(f"<p>{remark}</p>" for remark in chance.choices(_REMARKS, k=chance.randrange(1, 5)))
        yield (
            number,
            "sale.order",
            order,
            chance.choice(("comment", "email")),
            f"Re: S{order:05d}",
            remarks,
            f"contact{author}@example.com",
            author,
            _FIRST_DAY + timedelta(minutes=number * 86),
        )
