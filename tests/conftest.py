"""The fixtures that several tests share: real servers, each started once and ended with the session."""

from __future__ import annotations

from tests.lab.postgres_server import postgres, system_postgres, wheel_postgres

__all__ = ["postgres", "system_postgres", "wheel_postgres"]
