"""A plugin for runs of actions (`-p tests.lab.hail`): SIGTERM arrives some time after the step HAIL_STEP has begun.

HAIL_SECONDS says how much later; the signal is a real one, of the process to itself.
"""

from __future__ import annotations

import os
import signal
import threading

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Send the signal, at once or by and by; the step itself is run by pytest."""
    if pyfuncitem.name.partition("[")[0] != os.environ["HAIL_STEP"]:
        return
    seconds = float(os.environ["HAIL_SECONDS"])
    if seconds:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
    else:
        os.kill(os.getpid(), signal.SIGTERM)
