"""Alembic's entry into a release: where the database is, the application's own code reads from its own odoo.conf."""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import context
from sqlalchemy import URL, create_engine, pool

# The release that this file is in, and no other.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from shop.settings import read_settings


def _url() -> URL:
    path = context.config.get_main_option("odoo_conf")
    if not path:
        raise SystemExit("alembic.ini has no odoo_conf: the path of the application's configuration")
    settings = read_settings(Path(path))
    return URL.create(
        "postgresql+psycopg",
        username=settings.user or None,
        password=settings.password or None,
        host=settings.host or None,
        port=settings.port,
        database=settings.database,
    )


if context.is_offline_mode():
    context.configure(url=_url(), literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = create_engine(_url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
