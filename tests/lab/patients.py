"""Fixtures: an application whose restore fails, or is cut short, in every test of a module; and how it was before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.postgres_server import PostgresServer
from tests.lab.restorelab import Patient, State, running_patient
from tests.lab.waiting import await_true


@pytest.fixture(scope="module")
def patient(wheel_postgres: PostgresServer) -> Iterator[Patient]:
    """One application for a module's tests, each of which leaves it as it found it."""
    with running_patient(wheel_postgres) as patient:
        yield patient


@pytest.fixture
def before(patient: Patient) -> Iterator[State]:
    """The state that a test begins with."""
    patient.describe()
    patient.feel("well")
    await_true(patient.service.is_healthy, "the service does not answer")
    yield patient.look()
    patient.feel("well")
