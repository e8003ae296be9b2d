"""A plugin: real Debian hosts for tests.

A test module takes it in by `pytest_plugins = ["tests.lab.lab_hosts"]` and marks itself `lab`. Where hosts cannot be
booted its tests are skipped with the reason; where the variable CI is set they fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from opsproof.errors import OpsproofError
from tests.lab.debian_base import DebianBase, find_base, require_lab
from tests.lab.debian_host import DebianHost
from tests.lab.lent_hosts import refuse, remove_orphans, running_host


@pytest.fixture(scope="session")
def lab_base() -> DebianBase:
    """The disk that all hosts start from, built the first time of all."""
    missing: OpsproofError | None = None
    try:
        require_lab()
    except OpsproofError as error:
        missing = error
    if missing:
        refuse(missing)
    base = find_base()
    remove_orphans(base)
    return base


@pytest.fixture(scope="module")
def lab_host(lab_base: DebianBase) -> Iterator[DebianHost]:
    """A host that the tests of a module share."""
    with running_host(lab_base) as host:
        yield host


@pytest.fixture
def fresh_lab_host(lab_base: DebianBase) -> Iterator[DebianHost]:
    """A pristine host for one test."""
    with running_host(lab_base) as host:
        yield host


@pytest.fixture
def boot_lab_host(lab_base: DebianBase) -> Iterator[Callable[[str], DebianHost]]:
    """Boot pristine hosts for one test, as many as it calls this for, each with a name to begin its hostname."""
    with ExitStack() as hosts:
        yield lambda name: hosts.enter_context(running_host(lab_base, name))
