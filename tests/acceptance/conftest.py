"""What the acceptance tests share: an S3 server, and backups that were taken once for many tests to look at."""

from __future__ import annotations

from tests.lab.finished_backup import finished_backup
from tests.lab.moto_server import moto_server

__all__ = ["finished_backup", "moto_server"]
