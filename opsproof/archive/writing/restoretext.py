"""RESTORE.txt: how to restore a backup by hand, with nothing but unzip, pg_restore and psql."""

from __future__ import annotations

import shlex

from psycopg import sql

from opsproof.archive.manifest import PLAIN_NAME, Manifest
from opsproof.archive.names import SEALED

TEXT = """\
How to restore this backup by hand
==================================

Backup {id} of database "{database}" (environment {environment}, target {target}),
taken {taken:%Y-%m-%d %H:%M:%S} UTC from PostgreSQL {server}.

You need unzip and the client programs of PostgreSQL {major} (an older pg_restore cannot read the
dump, a newer one may send settings that the server does not know), and a superuser, or a role with
CREATEDB that is the owner {owner}: set PGHOST, PGPORT, PGUSER and PGPASSWORD for it. Run the commands
in a shell, in an empty folder with the bundle in it. They are the lines indented by four spaces;
those by seven are another way to do the same.

{opening}1. Unpack. unzip tests every file's checksum; members.jsonl has the SHA-256 of each.

    unzip -q {stem}.zip

2. Roles, without passwords. "already exists" is no fault here. On a server that has roles of its own,
   read roles.sql first and run only what is missing.

    psql -X -d postgres -f roles.sql

3. The database, with its owner, encoding, locale, settings and grants, and all its content. It must not
   exist yet: rename an old one away first, and drop that only when you have looked at the new one.

    pg_restore --create --exit-on-error --dbname=postgres {stem}.dump

   For another name, make the database yourself and leave out --create:

       {create}
       pg_restore --exit-on-error --jobs=4 --dbname=NAME {stem}.dump

   The same as plain SQL. It is whole only if it ends with "PostgreSQL database dump complete":

       psql -X -v ON_ERROR_STOP=1 --single-transaction -d NAME -f {stem}.sql
{objects}
4. Statistics, which no dump has:

    psql -X -v ON_ERROR_STOP=1 -d {dbname} -c ANALYZE

{files}
6. Look before anybody else does. tables.jsonl has the number of rows of each table, and the XXH3-128
   (xxh128sum) of what "COPY table TO STDOUT" prints of it, with TimeZone UTC.

A copy of an Odoo that is not a move must be neutralized before any Odoo process sees it: it would send
mail and run scheduled jobs as the original does.
"""

OPENING = """\
0. Decrypt, where that was not done yet. You need age (age-encryption.org) and a file with the private key of
   one of the recipients, which the manifest beside the backup names.

    {command}

"""
LARGE_OBJECTS = """\

   (The dump has transactions of its own around its large objects: what came before the first of them stays,
   should an error follow. Look at the exit status.)
"""
FILES = """\
5. The files: {files:,} of them, {bytes:,} bytes. Odoo looks for them in data_dir/filestore/NAME, where NAME
   is the database's.

    mkdir -p {path}
    cp -a filestore/. {path}/
    chown -R {owner} {path}
    chmod {mode} {path}
"""
NO_FILES = """\
5. This application keeps no files.
"""


def opening_command(name: str) -> str:
    """Return the command that decrypts a stored backup by hand.

    >>> opening_command("prod_2026-01-31_02-00-00.zip.age")
    'age -d -i key.txt prod_2026-01-31_02-00-00.zip.age > prod_2026-01-31_02-00-00.zip'
    """
    return f"age -d -i key.txt {shlex.quote(name)} > {shlex.quote(name.removesuffix(SEALED))}"


def restore_text(manifest: Manifest, *, sealed: bool = False) -> str:
    """Return the text for a bundle, which is stored encrypted if it is `sealed`."""
    database = manifest.database
    return TEXT.format(
        id=manifest.id,
        database=_on_one_line(database.name),
        environment=_on_one_line(manifest.environment),
        target=_on_one_line(manifest.target),
        taken=manifest.taken,
        server=manifest.server.version,
        major=manifest.server.version_num // 10000,
        owner=_on_one_line(database.owner),
        stem=shlex.quote(manifest.id),
        create=f"psql -X -v ON_ERROR_STOP=1 -d postgres -c {shlex.quote(_create_database(manifest))}",
        dbname=_conninfo(database.name),
        opening=OPENING.format(command=opening_command(f"{manifest.id}.zip{SEALED}")) if sealed else "",
        objects=LARGE_OBJECTS if manifest.totals.large_objects else "",
        files=_files(manifest),
    )


def _on_one_line(name: str) -> str:
    # In the prose a line feed would begin a new line, and four spaces after it a command.
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


def _files(manifest: Manifest) -> str:
    filestore = manifest.filestore
    if filestore is None:
        return NO_FILES
    return FILES.format(
        files=filestore.files,
        bytes=filestore.bytes,
        path=shlex.quote(filestore.path),
        owner=shlex.quote(f"{filestore.owner}:{filestore.group}"),
        mode=filestore.mode,
    )


def _create_database(manifest: Manifest) -> str:
    database = manifest.database
    words = [
        sql.SQL('CREATE DATABASE "NAME" OWNER {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}').format(
            sql.Identifier(database.owner), database.encoding, database.collate, database.ctype
        )
    ]
    if database.locale_provider == "icu":
        words.append(sql.SQL("LOCALE_PROVIDER icu ICU_LOCALE {}").format(database.locale))
        if database.icu_rules:
            words.append(sql.SQL("ICU_RULES {}").format(database.icu_rules))
    elif database.locale_provider == "builtin":
        words.append(sql.SQL("LOCALE_PROVIDER builtin BUILTIN_LOCALE {}").format(database.locale))
    return sql.SQL(" ").join(words).as_string()


def _conninfo(name: str) -> str:
    if PLAIN_NAME.fullmatch(name):
        return name
    # As a connection string: a name with "=" in it would be taken for one.
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return shlex.quote(f"dbname='{escaped}'")
