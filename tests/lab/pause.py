"""A plugin for runs of actions (`-p tests.lab.pause`): after the step that PAUSE_AFTER names the run waits.

It touches the file `reached` in the folder PAUSE_FOLDER, and goes on when there is a file `go`. S3's requests are
repeated without the seconds in between that botocore takes, which prove nothing here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from botocore.retries.standard import ExponentialBackoff

SECONDS = 60.0


def pytest_configure() -> None:
    """Repeat requests at once."""
    ExponentialBackoff.delay_amount = lambda self, context: 0.01  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait once the step and its report are done."""
    result = yield
    if item.name.partition("[")[0] == os.environ.get("PAUSE_AFTER"):
        folder = Path(os.environ["PAUSE_FOLDER"])
        (folder / "reached").touch()
        deadline = time.monotonic() + SECONDS
        while not (folder / "go").exists():
            assert time.monotonic() < deadline, "nobody said go"
            time.sleep(0.01)
    return result
