"""Lab hosts that are lent to tests: none outlives its borrower for long."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from opsproof.errors import OpsproofError
from tests.lab.debian_base import DebianBase, lab_folder, locked
from tests.lab.debian_host import DebianHost
from tests.lab.nspawn import Process


@contextmanager
def running_host(base: DebianBase, name: str = "erp") -> Iterator[DebianHost]:
    """Boot a pristine host, and leave nothing of it after the block.

    Args:
        base: What its disk starts from.
        name: What its hostname begins with.
    """
    host = DebianHost(f"{name}-{secrets.token_hex(3)}", base, owner=Process.of(os.getpid()))
    try:
        host.boot()
        yield host
    finally:
        host.remove()


def remove_orphans(base: DebianBase) -> None:
    """Remove the hosts whose owner is gone: a pytest that was killed could not."""
    with locked(lab_folder() / "orphans.lock"):
        for path in lab_folder().glob("hosts/*/owner"):
            owner = Process.read(path)
            if owner and not owner.is_running:
                DebianHost(path.parent.name, base).remove()


def refuse(reason: OpsproofError) -> NoReturn:
    """Skip a test that needs the lab, or fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(str(reason), pytrace=False)
    pytest.skip(str(reason))
