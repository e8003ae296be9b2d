"""Whose an application's files are, and what its database is besides its content."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab.restored import Restorable

# Whom the files are given to; another account than the one that runs the tests can only be chosen by root.
OWNER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
MODE = 0o750


def give_files_away(folder: Path) -> None:
    """Let all that is in a filestore be another account's, and its folders of that mode."""
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, OWNER, grp.getgrgid(pwd.getpwnam(OWNER).pw_gid).gr_name)
        if path.is_dir():
            path.chmod(MODE)


def oid_of(shop: Restorable) -> int:
    """Return which database is the live one, whatever its name."""
    return int(shop.query("SELECT oid::bigint FROM pg_database WHERE datname = current_database()")[0][0])


def properties_of(shop: Restorable) -> Mapping[str, Any]:
    """Return all that a database is besides its content."""
    (row,) = shop.query(
        "SELECT pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'), datconnlimit, encoding, datcollate,"
        " datctype, datallowconn, datistemplate FROM pg_database WHERE datname = current_database()"
    )
    grants = shop.query(
        "SELECT grantor::regrole::text, grantee::regrole::text, privilege_type, is_grantable"
        " FROM pg_database, aclexplode(datacl) WHERE datname = current_database() ORDER BY 1, 2, 3, 4"
    )
    settings = shop.query(
        "SELECT setrole::regrole::text, unnest(setconfig) FROM pg_db_role_setting JOIN pg_database d"
        " ON d.oid = setdatabase WHERE datname = current_database() ORDER BY 1, 2"
    )
    return {"row": row, "grants": grants, "settings": settings}
