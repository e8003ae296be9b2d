"""What an error of a procedure tells the operator to type next."""

from __future__ import annotations

import shlex

from psycopg import sql

from opsproof.target import Target

# Shows which database is which, whatever it is called now.
LIST_DATABASES = "psql -d postgres -c 'SELECT oid, datname FROM pg_database'"


def recover_command(target: Target) -> str:
    """Return what brings a target to a proven end."""
    return f"pytest actions/test_recover.py {_options(target)}"


def backup_command(target: Target) -> str:
    """Return what takes a backup of a target."""
    return f"pytest actions/test_backup.py {_options(target)}"


def cleanup_command(target: Target) -> str:
    """Return what cleans up a target."""
    return f"pytest actions/test_cleanup.py {_options(target)}"


def undo_command(target: Target) -> str:
    """Return what takes the last restore or rollback back."""
    return f"{recover_command(target)} --undo"


def rollback_command(target: Target, kind: str) -> str:
    """Return what rolls a target back: its schema, its data, or both."""
    return f"pytest actions/test_rollback.py {_options(target)} --type={kind}"


def release_command(target: Target, release: str = "") -> str:
    """Return what goes back to a release; to the previous one where none is named."""
    return rollback_command(target, "release") + (f" --to-release={shlex.quote(release)}" if release else "")


def restore_command(target: Target, backup: str) -> str:
    """Return what brings back a backup, by its id."""
    return f"pytest actions/test_restore.py {_options(target)} --backup={shlex.quote(backup)}"


def deploy_command(target: Target) -> str:
    """Return what deploys a release to a target, but for the release."""
    return f"pytest actions/test_deploy.py {_options(target)}"


def listing_command(target: Target) -> str:
    """Return what shows the backups."""
    return f"pytest --list-backups --env={shlex.quote(target.environment)}"


def drop_command(database: str) -> str:
    """Return what drops a side database, which is a template, and so safe from an ordinary DROP DATABASE."""
    name = sql.Identifier(database)
    statements = (sql.SQL("ALTER DATABASE {} IS_TEMPLATE false"), sql.SQL("DROP DATABASE {}"))
    return "psql -d postgres " + " ".join(
        f"-c {shlex.quote(statement.format(name).as_string())}" for statement in statements
    )


def _options(target: Target) -> str:
    return f"--env={shlex.quote(target.environment)} --target={shlex.quote(target.name)}"
