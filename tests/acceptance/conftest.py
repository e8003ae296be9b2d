"""The fixtures of acceptance tests; a module that needs another application or project than these has its own."""

from __future__ import annotations

from tests.lab.backup_runs import application, bucket, project, proxy
from tests.lab.finished_backup import finished_backup
from tests.lab.moto_server import moto_server
from tests.lab.patients import before, patient

__all__ = ["application", "before", "bucket", "finished_backup", "moto_server", "patient", "project", "proxy"]
