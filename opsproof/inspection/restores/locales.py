"""Whether a server knows the encoding and the locale of a backup's database."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from opsproof.inspection.finding import Finding
from opsproof.inspection.restores.situation import DatabaseShape
from opsproof.system.postgres import catalog
from opsproof.system.postgres.server import Connection, Server

BUILTIN_LOCALES = {"C": 17, "C.UTF-8": 17, "PG_UNICODE_FAST": 18}


def examine_locale(connection: Connection, server: Server, database: DatabaseShape) -> Iterator[Finding]:
    """Yield what a server lacks to make a database of this encoding and this locale.

    Raises:
        psycopg.Error: It could not be tried.
    """
    if not catalog.knows_encoding(connection, database.encoding):
        yield Finding(
            "encoding", database.encoding, "the server does not know it", "restore into a newer server", blocks=True
        )
        return
    provider, locale = database.locale_provider, database.locale or ""
    oldest = {"icu": 15, "builtin": BUILTIN_LOCALES.get(locale, 17)}.get(provider, 0)
    if server.major < oldest:
        yield Finding(
            "locale", f"provider {provider}, locale {locale}: PostgreSQL {oldest} or newer",
            f"PostgreSQL {server.version}", f"restore into PostgreSQL {oldest} or newer", blocks=True,
        )  # fmt: skip
        return
    wanted = [("libc", {"lc_collate": database.collate, "lc_ctype": database.ctype})]
    if provider == "icu":
        wanted.append(("icu", {"locale": locale, **({"rules": database.icu_rules} if database.icu_rules else {})}))
    # A collation is made in the encoding of the database that it is made in, which must be the backup's for this.
    here = connection.info.parameter_status("server_encoding")
    for kind, words in wanted:
        if {*words.values()} <= {"C", "POSIX"}:
            continue
        shown = f"{kind} {', '.join(sorted({*words.values()}))} for {database.encoding}"
        if kind == "libc" and here != database.encoding:
            yield Finding(
                "locale", shown, f"not looked at: {connection.info.dbname!r} has encoding {here}",
                "locale -a on the server tells", blocks=False,
            )  # fmt: skip
            continue
        try:
            refused = catalog.try_collation(connection, kind, **words)
        except psycopg.errors.InsufficientPrivilege as error:
            hint = "locale -a on the server tells"
            yield Finding("locale", shown, f"not looked at: {str(error).splitlines()[0]}", hint, blocks=False)
            continue
        if refused:
            hint = "apt-get install locales; dpkg-reconfigure locales; then restart PostgreSQL"
            hint = hint if kind == "libc" else "restore into a server that is built with ICU and has this locale"
            yield Finding("locale", shown, refused, hint, blocks=True)
