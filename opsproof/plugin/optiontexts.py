"""What the text behind an option says: a time, a span, whose backup, which role."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from opsproof.errors import ConfigurationError
from opsproof.policies import SPAN_FORM, span_of

MOST_SECONDS = 31_536_000  # a year; a timer cannot be set to just any number
MOST_SPAN = timedelta(days=36_525)  # a century; further back there is no date to count to, sooner or later
TRUE, FALSE = {"1", "true", "yes", "on", "y", "t"}, {"", "0", "false", "no", "off", "n", "f"}
SPACE_BEFORE_ZONE = re.compile(r"\s+(?=[+-]\d\d(:?\d\d)?$|[Zz]$)")


@dataclass(frozen=True)
class Source:
    """What `--from` names: another environment of the inventory, and its target where there are several."""

    environment: str
    target: str | None = None


def read_time(text: str) -> datetime:
    """Return the time of `--at`, in UTC; one that names no zone is UTC already.

    >>> str(read_time("2026-01-31 02:00 +03:00")), str(read_time("2026-01-31"))
    ('2026-01-30 23:00:00+00:00', '2026-01-31 00:00:00+00:00')

    Raises:
        ConfigurationError: It is no time.
    """
    try:
        moment = datetime.fromisoformat(SPACE_BEFORE_ZONE.sub("", text.strip()))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"--at={text!r} is no time",
            expected="a date and a time as ISO 8601 writes them; UTC where no zone is named",
            found=str(error),
            hint="--at=2026-01-31   --at='2026-01-31 02:00'   --at=2026-01-31T02:00:00Z   --at=2026-01-31T05:00+03:00",
        ) from error


def read_source(text: str) -> Source:
    """Return what `--from` names.

    >>> read_source("prod/erp"), read_source("prod")
    (Source(environment='prod', target='erp'), Source(environment='prod', target=None))

    Raises:
        ConfigurationError: It is neither an environment nor an environment and a target.
    """
    environment, slash, target = text.strip().partition("/")
    if not environment or (slash and not target):
        raise ConfigurationError(
            f"--from={text!r} names no environment or no target",
            expected="ENV or ENV/TARGET",
            found=repr(text),
            hint="pytest --list-targets   shows both",
        )
    return Source(environment, target or None)


def read_role_map(pairs: Iterable[str]) -> dict[str, str]:
    """Return what `--map-role` says, the old role as key.

    Raises:
        ConfigurationError: One is not OLD=NEW, or two say different things of one role.
    """
    roles: dict[str, str] = {}
    for pair in pairs:
        old, _, new = pair.partition("=")
        if not old or not new:
            raise ConfigurationError(
                f"--map-role={pair} does not say which role stands for which",
                expected="OLD=NEW",
                found=pair or "nothing",
                hint="--map-role=odoo_prod=odoo_staging",
            )
        if roles.setdefault(old, new) != new:
            raise ConfigurationError(
                f"--map-role says two things of the role {old}",
                expected="one role that stands for it",
                found=f"{roles[old]} and {new}",
                hint="leave one out",
            )
    return roles


def read_seconds(option: str, text: str | None) -> float | None:
    """Return the seconds that an option says; None where it was not given.

    Raises:
        ConfigurationError: It is no number, or not more than nothing.
    """
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MOST_SECONDS:
        raise ConfigurationError(
            f"{option}={text!r} is no number of seconds",
            expected=f"more than 0 and at most {MOST_SECONDS:,}",
            found=repr(text),
            hint=f"{option}=3600",
        )
    return seconds


def read_span(option: str, text: str | None) -> timedelta | None:
    """Return the span of time that an option says; None where it was not given.

    Raises:
        ConfigurationError: It is none, or nothing, or more than a century.
    """
    if text is None:
        return None
    try:
        span = span_of(text)
    except ValueError:
        span = timedelta()
    if not timedelta() < span <= MOST_SPAN:
        raise ConfigurationError(
            f"{option}={text!r} is no span of time",
            expected=f"{SPAN_FORM}: more than nothing, and at most 100y",
            found=repr(text),
            hint=f"{option}=30d",
        )
    return span


def read_file(option: str, text: str | None) -> Path | None:
    """Return the file that an option names; None where it was not given.

    Raises:
        ConfigurationError: It is an empty text.
    """
    if text is None:
        return None
    if not text.strip():
        raise ConfigurationError(
            f"{option} names nothing",
            expected="a file's path",
            found="an empty text: a variable that is not set?",
            hint=f"give a path, or leave {option} out",
        )
    return Path(text)


def is_dry_run(variable: str) -> bool:
    """Tell what the variable DRY_RUN says; one that is not set says no.

    Raises:
        ConfigurationError: Neither yes nor no: nobody's dry run may be a real one.

    >>> is_dry_run(" Yes"), is_dry_run("")
    (True, False)
    """
    word = variable.strip().lower()
    if word not in TRUE | FALSE:
        raise ConfigurationError(
            "DRY_RUN does not say whether this is a dry run",
            expected="true or false",
            found=repr(variable),
            kept="nothing was run",
            hint="DRY_RUN=true pytest ...   or leave it out",
        )
    return word in TRUE
