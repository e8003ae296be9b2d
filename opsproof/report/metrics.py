"""What runs came to, as Prometheus reads it from a file; of what did not run now, what stands there is kept."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from opsproof.errors import ConfigurationError
from opsproof.policies import Objectives

Verdict = Literal["passed", "failed", "error", "skipped"]
VERDICTS: tuple[Verdict, ...] = ("passed", "failed", "error", "skipped")
OF_AN_ACTION = ("environment", "target", "action")

SUCCESS = "opsproof_last_success_timestamp_seconds"
RUN = "opsproof_last_run_timestamp_seconds"
TAKEN = "opsproof_backup_taken_timestamp_seconds"
AGE = "opsproof_backup_age_seconds"
BYTES = "opsproof_backup_bytes"
DURATION = "opsproof_duration_seconds"
OUTAGE = "opsproof_outage_seconds"
RTO = "opsproof_rto_seconds"
RPO = "opsproof_rpo_seconds"
VERDICT = "opsproof_verdict"

FAMILIES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    SUCCESS: ("When the last run that passed ended.", OF_AN_ACTION),
    RUN: ("When the last run ended, whatever it came to.", OF_AN_ACTION),
    TAKEN: ("When the snapshot of the last backup was taken.", OF_AN_ACTION),
    AGE: ("How old that was when this file was written; time() minus the time itself is how old it is.", OF_AN_ACTION),
    BYTES: ("What the last backup takes in the store.", OF_AN_ACTION),
    DURATION: ("How long the last run took; the phase total is all of it.", (*OF_AN_ACTION, "phase")),
    OUTAGE: ("How long nobody could work, the last time.", OF_AN_ACTION),
    RTO: ("How long a restore may take (objective), and how long the last one, or the last drill, took (measured).",
          ("environment", "target", "kind")),
    RPO: ("How old the newest backup may be (objective), and how old it was when the next was taken (measured).",
          ("environment", "target", "kind")),
    VERDICT: ("1 for what the last run came to.", (*OF_AN_ACTION, "verdict")),
}  # fmt: skip
TOTAL = "total"
OBJECTIVE, MEASURED = "objective", "measured"
# node_exporter runs as another account.
MODE = 0o644


@dataclass(frozen=True)
class Came:
    """What one action, or the checks of one file, came to with one target.

    Attributes:
        environment: The environment's name.
        target: The target's.
        action: The action's.
        verdict: What it came to.
        ended: When, in seconds since 1970.
        seconds: How long all of it took.
        phases: Seconds by phase.
        backup_taken: When the backup's snapshot was taken, in seconds since 1970; None where it made none.
        backup_bytes: The backup's size.
        outage: Seconds in which nobody could work; None where it has none to tell.
        is_restore: It brought a backup back, which is what a recovery time is measured by.
        rto: What a drill measured it to be, in seconds; that counts whether or not the drill met its objectives.
        objectives: What the inventory asks for.
    """

    environment: str
    target: str
    action: str
    verdict: Verdict
    ended: float
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    backup_taken: float | None = None
    backup_bytes: int | None = None
    outage: float | None = None
    is_restore: bool = False
    rto: float | None = None
    objectives: Objectives = field(default_factory=Objectives)


Labels = tuple[str, ...]
Samples = dict[tuple[str, Labels], float]
"""By the metric's name and its labels' values, in the order of `FAMILIES`."""


def write_metrics(path: Path, came: Iterable[Came], now: float) -> None:
    """Bring the file up to date. A reader finds the old content or the new, never a part.

    Args:
        path: The file; it is made where it is missing.
        came: What ran now.
        now: Seconds since 1970.

    Raises:
        ConfigurationError: What is there is not ours, or it cannot be written; it is as it was.
    """
    try:
        with _locked(path.parent):
            samples = merge(read_metrics(path), came, now)
            _replace(path, render(samples))
    except OSError as error:
        raise _unwritable(path, error) from error


def require_metrics_file(path: Path) -> None:
    """Make sure, before anything is run, that the file could be written, and is none of somebody else's.

    Raises:
        ConfigurationError: It could not, or it is.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder", str(path))
        if not path.parent.is_dir():
            raise FileNotFoundError(2, "there is no such folder", str(path.parent))
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(13, "its folder cannot be written", str(path.parent))
        read_metrics(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def read_metrics(path: Path) -> Samples:
    """Return what the file says; nothing where it is not there, or empty.

    Raises:
        ConfigurationError: It was not written by this tool.
        OSError: It cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    samples: Samples = {}
    try:
        for family in text_string_to_metric_families(content.decode()):
            for sample in family.samples:
                labels = FAMILIES[sample.name][1]
                samples[sample.name, tuple(sample.labels[label] for label in labels)] = float(sample.value)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _foreign(path) from error
    if content.strip() and not samples:
        raise _foreign(path)
    return samples


def merge(before: Samples, came: Iterable[Came], now: float) -> Samples:
    """Return the samples with what ran now in the place of what ran before; ages are as of now."""
    samples = dict(before)
    for one in came:
        _take_over(samples, one)
    for (name, labels), taken in list(samples.items()):
        if name == TAKEN:
            samples[AGE, labels] = max(0.0, now - taken)
    return samples


def render(samples: Samples) -> bytes:
    """Return the text of the file."""

    class Collected:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            for name, (documentation, labels) in FAMILIES.items():
                family = GaugeMetricFamily(name, documentation, labels=labels)
                for (_, values), value in sorted(one for one in samples.items() if one[0][0] == name):
                    family.add_metric(values, value)
                if family.samples:
                    yield family

    registry = CollectorRegistry()
    registry.register(Collected())
    return generate_latest(registry)


def _take_over(samples: Samples, one: Came) -> None:
    action = (one.environment, one.target, one.action)
    target = action[:2]
    for name, labels in list(samples):
        is_objective = name in (RTO, RPO) and labels == (*target, OBJECTIVE)
        if is_objective or (name == DURATION and labels[:3] == action):
            del samples[name, labels]
    samples[RUN, action] = one.ended
    for verdict in VERDICTS:
        samples[VERDICT, (*action, verdict)] = float(verdict == one.verdict)
    for phase, seconds in {**one.phases, TOTAL: one.seconds}.items():
        samples[DURATION, (*action, phase)] = seconds
    for name, objective in ((RTO, one.objectives.rto), (RPO, one.objectives.rpo)):
        if objective is not None:
            samples[name, (*target, OBJECTIVE)] = objective.total_seconds()
    if one.outage is not None:
        samples[OUTAGE, action] = one.outage
    if one.rto is not None:
        samples[RTO, (*target, MEASURED)] = one.rto
    if one.verdict != "passed":
        return
    samples[SUCCESS, action] = one.ended
    if one.is_restore:
        samples[RTO, (*target, MEASURED)] = one.seconds
    if one.backup_taken is not None:
        previous = samples.get((TAKEN, action))
        if previous is not None and previous < one.backup_taken:
            samples[RPO, (*target, MEASURED)] = one.backup_taken - previous
        samples[TAKEN, action] = one.backup_taken
    if one.backup_bytes is not None:
        samples[BYTES, action] = float(one.backup_bytes)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one run at a time read and write; the folder itself is the lock, so that none is left lying about."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace(path: Path, content: bytes) -> None:
    # The textfile collector reads names that end in .prom, and this one does not.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), MODE)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _foreign(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"--metrics-file={path} is not a file of this tool's",
        expected="no such file yet, or one that holds metrics called opsproof_...",
        found="something else, or a damaged one",
        kept="the file is as it was",
        hint=f"name another file, or put it aside: mv {path} {path}.aside",
    )


def _unwritable(path: Path, error: OSError) -> ConfigurationError:
    folder = path.parent
    return ConfigurationError(
        f"--metrics-file={path} cannot be written",
        expected="a file in a folder that this account can write",
        found=f"{error.strerror or error}: {error.filename or path}",
        kept="the file is as it was, if there is one",
        hint=f"ls -ld {folder}; sudo setfacl -m u:$(id -un):rwx {folder}" if folder.is_dir() else f"mkdir -p {folder}",
    )
