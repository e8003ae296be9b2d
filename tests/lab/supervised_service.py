"""The counting application as the service `application`, which supervisor starts again whenever it is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import counting
from tests.lab.application import Application
from tests.lab.supervised import Supervised as SupervisedService
from tests.lab.supervised import supervised
from tests.lab.waiting import await_true

__all__ = ["SupervisedService", "await_true", "supervised_service"]


@contextmanager
def supervised_service(folder: Path, application: Application) -> Iterator[SupervisedService]:
    """Run it under supervisor; it is not started yet."""
    options = {"autostart": "false", "autorestart": "true", "startsecs": "1", "startretries": "20"}
    with supervised(application, counting.__file__, name="application", **options) as service:
        yield service
