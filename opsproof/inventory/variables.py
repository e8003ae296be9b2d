"""The database that variables name: DATABASE_URL, libpq's PG*, or the application's own settings.

No message here repeats a URL or a part of one: a password that was not percent-encoded ends up in its host or name.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from configparser import Error, RawConfigParser
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qsl, urlencode

from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict

from opsproof.errors import ConfigurationError
from opsproof.target import DatabaseAddress, Secret

_SCHEME = re.compile(r"^(postgres(?:ql)?)(?:\+\w+)?://", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")
_SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
_SSL_WORDS = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
# What drivers and their wrappers read from a URL for themselves; it says nothing of where the database is.
# fmt: off
_DRIVER_WORDS = frozenset({
    "async_fallback", "command_timeout", "connection_limit", "direct_tls", "max_cacheable_statement_size",
    "max_cached_statement_lifetime", "pgbouncer", "pool_timeout", "prepare_threshold",
    "prepared_statement_cache_size", "prepared_statement_name_func", "schema", "server_settings",
    "socket_timeout", "statement_cache_size", "timeout",
})
# fmt: on
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_DEFAULTS = pq.Conninfo.get_defaults()
_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {option.envvar.decode(): option.keyword.decode() for option in _DEFAULTS if option.envvar}
)
_HIDDEN = frozenset(option.keyword.decode() for option in _DEFAULTS if option.dispchar == b"*") - {"password"}


@dataclass(frozen=True)
class NamedDatabase:
    """A database as one source names it.

    `origin` is the source as an error shows it; `port_stated` is False where the port is only libpq's default.
    """

    address: DatabaseAddress
    origin: str
    port_stated: bool = True

    def contradicts(self, other: NamedDatabase) -> bool:
        """Say whether the two are different databases, as far as both say where they are."""
        mine, theirs = self.address, other.address
        if mine.name != theirs.name:
            return True
        if mine.host and theirs.host and _place(mine.host) != _place(theirs.host):
            return True
        return self.port_stated and other.port_stated and mine.port != theirs.port

    def describe(self) -> str:
        """Return the database and its source in one line, without its user and password."""
        where = f"{self.address.host}:{self.address.port}" if self.address.host else "no host"
        return f"{self.address.name} ({where}), by {self.origin}"


def database_of_environment(environ: Mapping[str, str]) -> NamedDatabase | None:
    """Return the database that DATABASE_URL or the PG* variables name, or None if neither does.

    DATABASE_URL is filled up from PG*, as libpq itself fills up a URL.

    Raises:
        ConfigurationError: Both name a database and not the same, or one of them cannot be read.
    """
    url = environ.get("DATABASE_URL", "").strip()
    words = {word: environ[name] for name, word in _ENVIRONMENT.items() if environ.get(name)}
    if not url and not {"dbname", "service"} & set(words):
        return None
    words = _with_service(words, environ, "PGSERVICE", service_wins=True)
    from_words = None
    if words.get("dbname"):
        from_words = _named(words, "PGDATABASE" if environ.get("PGDATABASE") else "PGSERVICE")
    if not url:
        return from_words
    url_words = _words_of_url(url, "DATABASE_URL", environ)
    if from_words is not None:
        from_url = _named({"dbname": words["dbname"], **url_words}, "DATABASE_URL")
        if from_url.contradicts(from_words):
            raise ConfigurationError(
                "DATABASE_URL and the PG* variables name different databases",
                expected="one database",
                found=f"{from_url.describe()}\n{from_words.describe()}",
                hint="unset DATABASE_URL, or: unset PGDATABASE PGHOST PGPORT PGSERVICE",
            )
    return _named({**words, **url_words}, "DATABASE_URL")


def database_of_url(
    url: str, origin: str, *, dbname: str | None = None, environ: Mapping[str, str] | None = None
) -> NamedDatabase:
    """Return the database of a libpq or SQLAlchemy URL, or of a libpq connection string.

    Args:
        url: `postgresql://`, `postgres://`, `postgresql+driver://`, or `host=... dbname=...`.
        origin: What an error names as the place to correct.
        dbname: The name where the URL has none.
        environ: Where PGSERVICEFILE and HOME are looked up, for `?service=`; None is the process's own.

    Raises:
        ConfigurationError: It cannot be read, or names no database; the text itself is never repeated.
    """
    words = _words_of_url(url.strip(), origin, os.environ if environ is None else environ)
    return _named({"dbname": dbname, **words} if dbname else words, origin)


def with_default_user(database: NamedDatabase) -> NamedDatabase:
    """Return the same database with libpq's default user, the one that runs this process, where none is given."""
    address = database.address
    if address.user:
        return database
    user = pwd.getpwuid(os.geteuid()).pw_name
    filled = DatabaseAddress(address.name, address.host, address.port, user, address.password, address.parameters)
    return NamedDatabase(filled, database.origin, database.port_stated)


def _words_of_url(url: str, origin: str, environ: Mapping[str, str]) -> dict[str, str]:
    scheme = _SCHEME.match(url)
    if scheme is None and ("://" in url or "=" not in url):
        raise ConfigurationError(
            f"{origin} is not a PostgreSQL URL",
            expected="postgresql://user:password@host:port/database",
            found=f"a URL of the kind {kind[0]}" if (kind := _OTHER_SCHEME.match(url)) else "no URL",
            hint="correct its beginning: postgresql:// (postgresql+driver:// and postgres:// do as well)",
        )
    text = url
    if scheme is not None:
        _refuse_bare_characters(url[scheme.end() :], origin)
        text = f"postgresql://{_libpq_query(url[scheme.end() :], origin)}"
    try:
        words = {key: str(value) for key, value in conninfo_to_dict(text).items() if value}
    except ProgrammingError:
        raise _unencoded(origin) from None
    return _with_service(words, environ, origin, service_wins=False)


def _refuse_bare_characters(rest: str, origin: str) -> None:
    # libpq would take the tail of such a password for the host, and errors further on would show it.
    authority, _, path = rest.partition("?")[0].partition("/")
    if authority.count("@") > 1 or "@" in path or ("@" not in authority and "@" in rest.partition("?")[0]):
        raise _unencoded(origin)
    if "@" not in authority and "?" in authority:
        raise _unencoded(origin)


def _libpq_query(rest: str, origin: str) -> str:
    """Return what follows `://` with a query that libpq understands."""
    place, mark, query = rest.partition("?")
    if not mark:
        return rest
    if "@" in query and "@" not in place and "/" not in place:
        raise _unencoded(origin)
    known = {option.keyword.decode() for option in _DEFAULTS}
    kept = []
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key == "ssl":
            kept.append(("sslmode", _ssl_mode(value, origin)))
        elif key in known:
            kept.append((key, value))
        elif key not in _DRIVER_WORDS and not value:
            raise _unencoded(origin)  # no parameter at all, so perhaps the end of a password
        elif key not in _DRIVER_WORDS:
            raise ConfigurationError(
                f"{origin} has a parameter that PostgreSQL's client library does not know",
                expected="libpq's parameters, like sslmode or connect_timeout",
                found=key if key.isidentifier() else "a name that is none",
                hint="correct or remove it; special characters in a password are written %40 for @, %3F for ?",
            )
    # libpq reads %20 but not + as a space.
    return f"{place}?{urlencode(kept).replace('+', '%20')}" if kept else place


def _ssl_mode(value: str, origin: str) -> str:
    mode = _SSL_WORDS.get(value.lower(), value)
    if mode not in _SSL_MODES:
        raise ConfigurationError(
            f"{origin} has an ssl= that is no mode",
            expected=", ".join(sorted(_SSL_MODES)),
            found="another word",
            hint="write ?ssl=require, or ?sslmode=verify-full",
        )
    return mode


def _with_service(
    words: dict[str, str], environ: Mapping[str, str], origin: str, *, service_wins: bool
) -> dict[str, str]:
    """Return the words with those of the connection service file in place of its name.

    What is spelled out in a URL beats the file, and the file beats the variables: libpq's order.
    """
    if "service" not in words:
        return words
    name = words["service"]
    own = {key: value for key, value in words.items() if key != "service"}
    home = environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
    files = [Path(environ.get("PGSERVICEFILE") or f"{home}/.pg_service.conf")]
    files.append(Path(environ.get("PGSYSCONFDIR") or "/etc/postgresql-common") / "pg_service.conf")
    for file in files:
        parser = RawConfigParser(delimiters=("=",), comment_prefixes=("#",), strict=False)
        try:
            parser.read(file, encoding="utf-8")
        except (Error, OSError, UnicodeDecodeError):
            continue
        if parser.has_section(name):
            service = dict(parser.items(name))
            return {**own, **service} if service_wins else {**service, **own}
    raise ConfigurationError(
        f"{origin} names a connection service that is in no service file",
        expected=f"a section [{name}] in {' or '.join(map(str, files))}",
        found="none",
        hint=f"add the section, or point to its file: export PGSERVICEFILE=PATH ([{name}] must be in it)",
    )


def _named(words: Mapping[str, str], origin: str) -> NamedDatabase:
    name = words.get("dbname", "")
    port = words.get("port", "5432")
    host = words.get("host", "")
    if not name:
        raise ConfigurationError(
            f"{origin} names no database",
            expected="a database's name",
            found="a server, but no database",
            hint="add it to the end of the URL: postgresql://user@host/NAME (or set PGDATABASE)",
        )
    if "," in host or "," in port:
        raise ConfigurationError(
            f"{origin} names several hosts",
            expected="one server: a backup is taken of one",
            found=f"{max(host.count(','), port.count(',')) + 1} of them",
            hint="name the one to back up",
        )
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise _unencoded(origin)
    hidden = sorted(_HIDDEN & set(words))
    if hidden:
        raise ConfigurationError(
            f"{origin} carries a secret that cannot be kept out of sight",
            expected="no secret but the password",
            found=hidden[0],
            hint="for sslpassword: use a key file without one, readable by its owner only (sslkey=PATH)",
        )
    own = {"dbname", "host", "port", "user", "password"}
    address = DatabaseAddress(
        name=name,
        host=host,
        port=int(port),
        user=words.get("user", ""),
        password=Secret(words["password"]) if words.get("password") else None,
        parameters={key: value for key, value in words.items() if key not in own and value},
    )
    return NamedDatabase(address, origin, port_stated="port" in words)


def _place(host: str) -> str:
    return "localhost" if host.lower() in _LOOPBACK else host.lower()


def _unencoded(origin: str) -> ConfigurationError:
    return ConfigurationError(
        f"{origin} cannot be read as a PostgreSQL URL",
        expected="postgresql://user:password@host:port/database, special characters percent-encoded",
        found="something else (not repeated here: it may hold the password)",
        hint="in user and password write %40 for @, %2F for /, %3A for :, %3F for ?, %23 for #, %25 for %",
    )
