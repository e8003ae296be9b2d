"""Dead-man switches: an URL per action is asked for when it begins, and when it has ended, well or not.

    URL/start    the first step begins
    URL          it came to its end
    URL/fail     it did not, or was interrupted

A switch that hears nothing for too long raises the alarm by itself, which covers whatever was killed. A ping that fails
is a warning, and changes no result. A dry run pings nobody. The URL may hold a token: no log shows it.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from contextlib import nullcontext
from http.client import HTTPException
from urllib.parse import urlsplit, urlunsplit

import pytest

from opsproof.plugin.console import CONSOLE
from opsproof.plugin.monitoring.tally import TALLIES, Tally, owner_of, run_of, target_named
from opsproof.plugin.run import RUN, Run
from opsproof.plugin.steps import is_worker

# All checks of a target have one switch.
CHECKS = "checks"
SECONDS = 5.0
START, SUCCESS, FAIL = "start", "", "fail"
# Of a URL's path what is shorter, or a word without a digit, is no token: a log without such words could not be read.
SHORTEST_TOKEN = 8
LONGEST_WORD = 20


class Pings:
    """A plugin that says when something begins, and when it has ended."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._begun: set[tuple[str, str]] = set()
        self._told: set[tuple[str, str]] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Say that something begins, where its first test does: that may be in a worker."""
        belongs = owner_of(item)
        run = self._config.stash.get(RUN, None)
        if run is None or belongs is None:
            return
        action, target, procedure = belongs
        switch = (action if procedure else CHECKS, target)
        # A worker begins checks of a target that another one has begun: saying so twice does no harm.
        if switch not in self._begun:
            self._begun.add(switch)
            self._ping(run, *switch, START)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say what became of an action as soon as its last step is over."""
        if is_worker(self._config):
            return
        tallies = self._config.stash[TALLIES]
        one = tallies.of(report)
        if one is not None and tallies.has_ended(one):
            self._tell(one.action, one.target, [one])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Say what became of the rest: checks, and what was cut short."""
        if is_worker(self._config):
            return
        left: dict[tuple[str, str], list[Tally]] = {}
        for one in self._config.stash[TALLIES].all():
            left.setdefault((one.action if one.procedure else CHECKS, one.target), []).append(one)
        for (action, target), tallies in left.items():
            self._tell(action, target, tallies)

    def _tell(self, action: str, target: str, tallies: list[Tally]) -> None:
        run = run_of(self._config)
        if run is None or (action, target) in self._told:
            return
        self._told.add((action, target))
        verdicts = {self._config.stash[TALLIES].verdict(one) for one in tallies}
        # Some checks find nothing to look at, and are skipped.
        is_well = "passed" in verdicts and verdicts <= {"passed", "skipped"}
        self._ping(run, action, target, SUCCESS if is_well else FAIL)

    def _ping(self, run: Run, action: str, target: str, word: str) -> None:
        found = target_named(run, target)
        url = found.policies.ping_urls.get(action) if found else None
        if not url or run.options.dry_run:
            return
        _hide(run, url)
        fault = ping(url_of(url, word))
        if fault:
            message = f"The ping of {action} of {target} ({word or 'success'}) was not taken: {fault}"
            run.journal.warn(message, action=action)
            reporter = self._config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None and CONSOLE not in self._config.stash and not is_worker(self._config):
                # A test's set-up is captured, and with it what is written meanwhile.
                capture = self._config.pluginmanager.get_plugin("capturemanager")
                with capture.global_and_fixture_disabled() if capture else nullcontext():
                    reporter.write_line(f"WARNING: {run.redactor.clean(message)}")


def pytest_configure(config: pytest.Config) -> None:
    """Be there."""
    config.pluginmanager.register(Pings(config), "opsproof-pings")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Hide what may be a token before anything is logged."""
    run = session.config.stash.get(RUN, None)
    for target in run.environment.targets if run is not None else ():
        for url in target.policies.ping_urls.values():
            _hide(run, url)  # type: ignore[arg-type] # there are targets of a run only


def url_of(url: str, word: str) -> str:
    """Return where to say a word.

    >>> url_of("https://hc.example/ping/a1?x=1", "start")
    'https://hc.example/ping/a1/start?x=1'
    """
    parts = urlsplit(url)
    return url if not word else urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{word}"))


def ping(url: str, seconds: float = SECONDS) -> str:
    """Ask for a URL once, by way of the proxy that the environment names. Return why that was in vain, or nothing.

    Args:
        url: Where.
        seconds: The most that all of it may take, the look-up of the name included.
    """
    faults = [f"no answer within {seconds:g} s"]

    def ask() -> None:
        faults[:] = [_ask(url, seconds)]

    # No timeout of a socket's limits the look-up of a name, or an answer that comes byte by byte.
    thread = threading.Thread(target=ask, daemon=True, name="ping")
    thread.start()
    thread.join(seconds)
    return faults[0]


def _ask(url: str, seconds: float) -> str:
    request = urllib.request.Request(url, headers={"User-Agent": "opsproof", "Connection": "close"})  # noqa: S310 - the inventory's, held to http and https
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:  # noqa: S310
            response.read(1)
        return ""
    except urllib.error.HTTPError as error:
        with error:
            return f"HTTP {error.code} {error.reason}"
    except urllib.error.URLError as error:
        return f"no answer: {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        return f"no answer: {error or type(error).__name__}"


def _hide(run: Run, url: str) -> None:
    parts = urlsplit(url)
    tokens = [
        part
        for part in parts.path.split("/")
        if len(part) > LONGEST_WORD or (len(part) >= SHORTEST_TOKEN and any(sign.isdigit() for sign in part))
    ]
    for secret in (url, parts.query, parts.password or "", *tokens):
        run.redactor.add(secret)
