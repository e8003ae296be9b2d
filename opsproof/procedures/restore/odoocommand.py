"""The host's own Odoo, asked for the statements that neutralize a database of its version."""

from __future__ import annotations

import shlex

from opsproof.errors import CommandFailed, HostError
from opsproof.neutralizing import FIRST_WITH_ITS_OWN, major_of, own_statements
from opsproof.system.hosts.host import Host
from opsproof.system.services.service import services_of
from opsproof.target import Target

NONE = "none"
PROGRAMS = ("odoo", "odoo-bin")
# It reads a file of each installed module, after Odoo itself was loaded.
SECONDS = 300.0
UNKNOWN = "nknown command"
_ANY_STATUS = range(256)
_LAST_LINES = 10


def read_own_statements(target: Target, host: Host, database: str, version: str) -> tuple[str, str]:
    """Return what `odoo neutralize --stdout` says of a database, which it only reads; or empty, and why it does not.

    Args:
        target: Whose Odoo it is.
        host: Where that is.
        database: Whose installed modules count.
        version: Of the database's module `base`.

    Raises:
        HostError: Odoo was there, and did not say it.
    """
    major = major_of(version)
    if major is None or major < FIRST_WITH_ITS_OWN:
        return "", f"Odoo {version or 'of no known version'} has none"
    if target.odoo_bin == NONE:
        return "", "`odoo_bin: none`"
    program = target.odoo_bin or next((name for name in PROGRAMS if host.find_program(name)), None)
    if program is None:
        return "", "no odoo on the host's PATH; `odoo_bin` names one"
    command, environ = [program, "neutralize", "--stdout", "-d", database], {}
    if target.odoo_conf is not None:
        host = host.as_user(account_of(target, host))
        command += ["-c", target.odoo_conf]
    else:
        address = target.database
        named = {"--db_host": address.host, "--db_port": str(address.port), "--db_user": address.user}
        command += [f"{option}={value}" for option, value in named.items() if value]
        environ = {"PGPASSWORD": address.password.reveal()} if address.password else {}
    ended = host.run(*command, env=environ, timeout=SECONDS, accept=_ANY_STATUS)
    if ended.status and UNKNOWN in ended.stderr + ended.stdout:
        return "", f"{program} is older than {FIRST_WITH_ITS_OWN}"
    statements = own_statements(ended.stdout)
    if ended.status or not statements:
        tail = "\n".join(ended.stderr.strip().splitlines()[-_LAST_LINES:])
        raise CommandFailed(
            "Odoo does not say how to neutralize its database",
            expected="statements between BEGIN and COMMIT",
            found=tail or f"exit status {ended.status}, and nothing on stderr",
            kept="the live database is as it was",
            hint=f"try it: {shlex.join(command)}\nor take the built-in statements: `odoo_bin: none` in the inventory",
        )
    return statements, ""


def account_of(target: Target, host: Host) -> str:
    """Return Odoo's own account, for by its socket PostgreSQL lets in nobody else; empty where nobody knows it."""
    if target.service_user is not None:
        return target.service_user
    try:
        return next((owner for one in services_of(target, host) if (owner := one.owner())), "")
    except HostError:
        return ""
