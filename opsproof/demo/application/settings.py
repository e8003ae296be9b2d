"""The application's odoo.conf."""

from __future__ import annotations

import argparse
import configparser
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo


@dataclass(frozen=True)
class Settings:
    """The `[options]` that the application knows; `host` is empty for the Unix socket."""

    host: str
    port: int
    user: str
    database: str
    data_dir: Path
    http_interface: str
    http_port: int
    password: str = field(repr=False)

    @property
    def filestore(self) -> Path:
        """The folder of the database's attachments."""
        return self.data_dir / "filestore" / self.database

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[tuple[object, ...]]:
        """Connect to the application's database."""
        words = {"host": self.host, "user": self.user, "password": self.password}
        conninfo = make_conninfo(
            "",
            dbname=self.database,
            port=self.port,
            connect_timeout=5,
            application_name="shop",
            **{key: value for key, value in words.items() if value},
        )
        return psycopg.connect(conninfo, autocommit=autocommit)


def read_settings(path: Path) -> Settings:
    """Read odoo.conf; `False` is how Odoo writes an option that is not set."""
    parser = configparser.ConfigParser(interpolation=None)
    with path.open(encoding="utf-8") as file:
        parser.read_file(file)
    options = {key: "" if value == "False" else value for key, value in parser["options"].items()}
    return Settings(
        host=options.get("db_host", ""),
        port=int(options.get("db_port") or 5432),
        user=options.get("db_user", ""),
        password=options.get("db_password", ""),
        database=options["db_name"],
        data_dir=Path(options["data_dir"]),
        http_interface=options.get("http_interface") or "127.0.0.1",
        http_port=int(options.get("http_port") or 8069),
    )


def settings_from_arguments(description: str) -> Settings:
    """Read the odoo.conf that `-c` names; `-d` and `--http-port` go before it, as Odoo's own command has them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-c", "--config", type=Path, required=True, help="the application's odoo.conf")
    parser.add_argument("-d", "--database", help="another database than its db_name")
    parser.add_argument("--http-port", type=int, help="another port than its http_port")
    options = parser.parse_args()
    settings = read_settings(options.config)
    database, port = options.database or settings.database, options.http_port or settings.http_port
    return replace(settings, database=database, http_port=port)
