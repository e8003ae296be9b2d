"""pytest's side of opsproof: `pytest_plugins = ["opsproof.plugin"]` brings options, fixtures and steps.

Each module owns one subject with its options, hooks and fixtures together.
"""

from __future__ import annotations

pytest_plugins = [
    "opsproof.plugin.options",
    "opsproof.plugin.listing",
    "opsproof.plugin.monitoring.nagios",
    "opsproof.plugin.startup",
]
