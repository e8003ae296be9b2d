"""Whether the clocks of a target's machines agree with this one: names, retention and objectives go by them."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime

from opsproof.errors import HostError, ProofError
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.server import Connection
from opsproof.target import S3StoreSettings, StoreSettings

STORE_SECONDS = 10.0
# A Date header has whole seconds: the time itself is in the second that it names.
_WHOLE_SECOND = 1.0


@dataclass(frozen=True)
class Clock:
    """What a clock said.

    Attributes:
        name: Whose it is.
        ahead: Seconds that it is ahead of this machine's; less than nothing: behind.
        doubt: Seconds by which that may be wrong, as the answer was under way.
    """

    name: str
    ahead: float
    doubt: float


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for the answer: where it leads to is another machine's clock."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""


def read_host_clock(host: Host) -> Clock:
    """Ask the host for its time.

    Raises:
        HostError: It cannot be reached, or says no time.
    """
    before = time.time()
    said = host.run("date", "-u", "+%s.%N").stdout.strip()
    after = time.time()
    seconds, _, fraction = said.partition(".")
    if not seconds.isdigit():
        raise HostError(
            "The host says no time",
            expected="seconds since 1970, as date +%s prints them",
            found=said or "nothing",
            hint="on the host: date -u +%s",
        )
    # A date without nanoseconds (busybox) prints the word itself.
    if fraction.isdigit():
        return _clock(host.connection.host or "the host", float(said), before, after)
    return _clock(host.connection.host or "the host", int(seconds), before, after, resolution=_WHOLE_SECOND)


def read_server_clock(connection: Connection) -> Clock:
    """Ask the database server for its time."""
    before = time.time()
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    after = time.time()
    return _clock("the database server", float(row[0]) if row else 0.0, before, after)


def read_store_clock(settings: StoreSettings) -> Clock | None:
    """Ask an S3 server for its time, by the Date of its answer to anybody. None where there is no such answer.

    It needs no credentials: the refusal carries the time, too.
    """
    if not isinstance(settings, S3StoreSettings):
        return None
    url = settings.endpoint_url or f"https://s3.{settings.region}.amazonaws.com/"
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "opsproof"})  # noqa: S310 - the inventory's, held to http and https
    before = time.time()
    try:
        with urllib.request.build_opener(_NoRedirects()).open(request, timeout=STORE_SECONDS) as response:
            date = response.headers.get("Date")
    except urllib.error.HTTPError as error:
        with error:
            date = error.headers.get("Date")
    except (OSError, ValueError):
        return None
    after = time.time()
    try:
        said = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
    return _clock("the store", said, before, after, resolution=_WHOLE_SECOND)


def check_clock(clock: Clock, allowed: timedelta) -> float:
    """Make sure that a clock agrees with this machine's. Return the seconds that it is ahead.

    Args:
        clock: What it said.
        allowed: The most that it may differ; what the way of the answer leaves in doubt is not held against it.

    Raises:
        ProofError: It differs by more.
    """
    if abs(clock.ahead) - clock.doubt > allowed.total_seconds():
        raise ProofError(
            f"The clock of {clock.name} is {abs(clock.ahead):.1f} s {'ahead' if clock.ahead > 0 else 'behind'}",
            expected=f"at most {allowed.total_seconds():g} s between it and this machine's (thresholds.clock_skew)",
            found=f"{clock.ahead:+.3f} s, give or take {clock.doubt:.3f} s",
            kept="everything: a check only looks",
            hint="on both machines: timedatectl status; sudo systemctl restart systemd-timesyncd",
        )
    return clock.ahead


def _clock(name: str, said: float, before: float, after: float, *, resolution: float = 0.0) -> Clock:
    middle = (before + after) / 2
    return Clock(name, said + resolution / 2 - middle, (after - before + resolution) / 2)
