"""The data that benchmarks run on: contacts and messages, and a filestore of incompressible files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import psycopg
from psycopg import sql

# 2.5 million rows make 880 MB of database, 690 MB as plain SQL, at a deflate ratio of six.
FULL_ROWS = 2_500_000
CONTACT_SHARE = 0.2

TABLES = """
CREATE TABLE contacts (id serial PRIMARY KEY, name text, email text, phone text, street text, city text, country text,
    created timestamptz, active boolean, note text);
CREATE TABLE messages (id serial PRIMARY KEY, contact_id int REFERENCES contacts (id), subject text, body text,
    author text, created timestamptz, kind text, is_read boolean);
CREATE TABLE ir_attachment (id serial PRIMARY KEY, name text, store_fname text, checksum text);
"""
CONTACTS = """
INSERT INTO contacts (name, email, phone, street, city, country, created, active, note)
SELECT 'Contact ' || i, 'contact' || i || '@example.org', '+49 ' || (random() * 1e9)::int,
    (random() * 300)::int || ' Long Street', (array['Berlin', 'Paris', 'Manama', 'Cairo', 'Porto'])[1 + i % 5],
    (array['DE', 'FR', 'BH', 'EG', 'PT'])[1 + i % 5], timestamptz '2024-01-01' + i * interval '1 minute', i % 7 <> 0,
    'met at the fair in hall ' || i % 12
FROM generate_series(1, {contacts}) i
"""
MESSAGES = """
INSERT INTO messages (contact_id, subject, body, author, created, kind, is_read)
SELECT 1 + (random() * ({contacts} - 1))::int, 'Re: order S' || (random() * 1e5)::int,
    'Dear customer, your order ' || md5(i::text) || ' has been '
    || (array['confirmed', 'shipped', 'delivered', 'invoiced', 'cancelled'])[1 + i % 5]
    || ' and will be processed by our team in the next ' || i % 14 || ' days. Reference ' || (random() * 1e6)::int
    || '. Kind regards, the sales team of the company ' || md5((i % 100)::text),
    'user' || i % 50 || '@example.org', timestamptz '2024-01-01' + i * interval '17 seconds',
    (array['email', 'comment', 'notification'])[1 + i % 3], i % 3 = 0
FROM generate_series(1, {messages}) i
"""
INDEXES = """
CREATE INDEX ON messages (contact_id); CREATE INDEX ON messages (created); CREATE INDEX ON contacts (email);
"""


def fill_database(connection: psycopg.Connection[tuple[object, ...]], rows: int) -> None:
    """Fill an empty database with contacts and messages; the same rows at every call.

    Args:
        connection: In autocommit mode.
        rows: How many, of both together.
    """
    contacts = max(1, int(rows * CONTACT_SHARE))
    connection.execute("SELECT setseed(0.5)")
    connection.execute(TABLES)
    connection.execute(sql.SQL(CONTACTS).format(contacts=contacts))
    connection.execute(sql.SQL(MESSAGES).format(contacts=contacts, messages=rows - contacts))
    connection.execute(INDEXES)
    connection.execute("VACUUM ANALYZE")


def fill_filestore(
    folder: Path, connection: psycopg.Connection[tuple[object, ...]], files: int, file_bytes: int
) -> None:
    """Fill a filestore with random files named by their SHA-1, and a row of ir_attachment for each."""
    names = []
    for _ in range(files):
        content = os.urandom(file_bytes)
        digest = hashlib.sha1(content).hexdigest()
        path = folder / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        names.append(f"{digest[:2]}/{digest}")
    with connection.cursor().copy("COPY ir_attachment (name, store_fname, checksum) FROM STDIN") as copy:
        for name in names:
            copy.write_row((name, name, name[3:]))
