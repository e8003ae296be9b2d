"""A plugin of pytest that writes down every request to S3 of a run: `-p tests.lab.s3_recorder`, one JSON line each."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from botocore.client import BaseClient

FILE = "OPSPROOF_TEST_S3_REQUESTS"


def pytest_configure() -> None:
    """Stand between the run and botocore."""
    real = BaseClient._make_api_call  # type: ignore[attr-defined]
    path = Path(os.environ[FILE])

    def record(self: BaseClient, operation: str, params: dict[str, Any]) -> Any:
        known = {key: value for key, value in params.items() if key in ("Key", "VersionId", "Delete", "ObjectLockMode")}
        with path.open("a") as file:
            file.write(json.dumps([operation, known]) + "\n")
        return real(self, operation, params)

    BaseClient._make_api_call = record  # type: ignore[attr-defined]
