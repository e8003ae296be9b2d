"""Every exception that opsproof raises on purpose.

    OpsproofError
     +-- ConfigurationError        the inventory, odoo.conf, a variable or an option
     +-- HostError                 a command on the host
     |    +-- ProgramMissing
     |    +-- CommandFailed
     |    +-- CommandTimeout
     +-- DatabaseError             the server or the database
     |    +-- ConnectionFailed
     |    +-- DatabaseMissing
     |    +-- PermissionDenied
     |    +-- LockTimeout
     +-- DumpError                 pg_dump, pg_restore or psql did not do its work
     +-- MigrationError            Alembic, the application's env.py or a migration did not do its work
     +-- FilestoreError            the application's files
     +-- StoreError                the place that backups go to
     |    +-- StoreUnreachable
     |    +-- StoreDenied
     |    +-- BucketMissing
     |    +-- ObjectExists
     +-- ArchiveError              a backup cannot be written or read
     +-- ProofError                something was checked and is not as it must be
          +-- NoRoom               a disk is too small for what is to be written to it

    Interrupted (BaseException)    SIGTERM or Ctrl-C arrived while a step was running

The message is the product's user interface: one sentence, then what was expected, what was found, what was left as
it was, and what to type next.
"""

from __future__ import annotations


class OpsproofError(Exception):
    """The root of the tree.

    Args:
        summary: One sentence that stands alone, without a full stop's worth of detail.
        expected: What should have been so.
        found: What was so instead, with its evidence.
        kept: What was left as it was, or was put back.
        hint: What to type or to change next.
    """

    def __init__(self, summary: str, *, expected: str = "", found: str = "", kept: str = "", hint: str = "") -> None:
        self.summary = summary
        self.expected = expected
        self.found = found
        self.kept = kept
        self.hint = hint
        super().__init__(summary)

    def __str__(self) -> str:
        titled = {"expected": self.expected, "found": self.found, "kept": self.kept, "hint": self.hint}
        lines = [self.summary]
        for title, text in titled.items():
            if text:
                lines.append(f"  {title + ':':<10}" + text.replace("\n", "\n" + " " * 12))
        return "\n".join(lines)


class ConfigurationError(OpsproofError):
    """The inventory, odoo.conf, a variable or an option is wrong."""


class HostError(OpsproofError):
    """A command on the host did not do what it should."""


class ProgramMissing(HostError):
    """A program that is needed is not on the host."""


class CommandFailed(HostError):
    """A command ended with an exit status that is not one of the accepted."""


class CommandTimeout(HostError):
    """A command took longer than it may, or stopped making progress.

    Args:
        summary: As every error's, and so is the rest.
        printed: What it had printed by then, as far as that is known.
    """

    def __init__(self, summary: str, *, printed: str = "", **told: str) -> None:
        self.printed = printed
        super().__init__(summary, **told)


class DatabaseError(OpsproofError):
    """The server or the database is not as it must be."""


class ConnectionFailed(DatabaseError):
    """The server did not answer, or refused the login."""


class DatabaseMissing(DatabaseError):
    """The server answered, but has no such database."""


class PermissionDenied(DatabaseError):
    """The role may not do what is needed."""


class LockTimeout(DatabaseError):
    """Somebody holds a lock for longer than the backup may wait."""


class DumpError(OpsproofError):
    """pg_dump, pg_restore or psql failed, or its output is not whole."""


class MigrationError(OpsproofError):
    """Alembic, the application's env.py, or a migration failed, or is not what was planned."""


class FilestoreError(OpsproofError):
    """The application's files are missing, unreadable or changing."""


class StoreError(OpsproofError):
    """The place that backups go to refused or failed."""


class StoreUnreachable(StoreError):
    """The store did not answer."""


class StoreDenied(StoreError):
    """The store refused the credentials, or what they may do is not enough."""


class BucketMissing(StoreError):
    """There is no such bucket."""


class ObjectExists(StoreError):
    """The name is taken; nothing is ever overwritten."""


class ArchiveError(OpsproofError):
    """A backup cannot be written, or cannot be read."""


class ProofError(OpsproofError):
    """Something was checked and is not as it must be."""


class NoRoom(ProofError):
    """A disk has too little room, of which nothing follows for what was to be written to it."""


class Interrupted(BaseException):
    """SIGTERM or Ctrl-C arrived while a step was running; undo follows.

    Not an `Exception`, so that no library's `except Exception` swallows it.
    """
