"""The metrics file: what ran now takes the place of what ran before; everything else is kept."""

from __future__ import annotations

import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from opsproof.errors import ConfigurationError
from opsproof.policies import Objectives
from opsproof.report.metrics import Came, read_metrics, require_metrics_file, write_metrics

BACKUP = Came(
    "prod", "erp", "backup", "passed", ended=1000.0, seconds=9.0, phases={"dump": 4.0},
    backup_taken=990.0, backup_bytes=12345, objectives=Objectives(rto=timedelta(hours=1), rpo=timedelta(days=1)),
)  # fmt: skip

LABELS = ("target", "action", "phase", "kind", "verdict")


def values(path: Path) -> dict[str, float]:
    """Return `name{labels}` -> value, as a scrape finds them."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        assert family.type == "gauge"
        assert family.documentation
        for one in family.samples:
            labels = ",".join(one.labels[label] for label in LABELS if label in one.labels)
            found[f"{one.name.removeprefix('opsproof_')}{{{labels}}}"] = one.value
    return found


def test_a_backup_that_passed(tmp_path: Path) -> None:
    path = tmp_path / "opsproof.prom"
    write_metrics(path, [BACKUP], now=1090.0)
    assert values(path) == {
        "last_success_timestamp_seconds{erp,backup}": 1000.0,
        "last_run_timestamp_seconds{erp,backup}": 1000.0,
        "backup_taken_timestamp_seconds{erp,backup}": 990.0,
        "backup_age_seconds{erp,backup}": 100.0,
        "backup_bytes{erp,backup}": 12345.0,
        "duration_seconds{erp,backup,dump}": 4.0,
        "duration_seconds{erp,backup,total}": 9.0,
        "rto_seconds{erp,objective}": 3600.0,
        "rpo_seconds{erp,objective}": 86400.0,
        "verdict{erp,backup,passed}": 1.0,
        "verdict{erp,backup,failed}": 0.0,
        "verdict{erp,backup,error}": 0.0,
        "verdict{erp,backup,skipped}": 0.0,
    }
    assert [one.name for one in tmp_path.iterdir()] == ["opsproof.prom"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_failure_keeps_the_last_success(tmp_path: Path) -> None:
    path = tmp_path / "m.prom"
    write_metrics(path, [BACKUP], now=1000.0)
    write_metrics(path, [Came("prod", "erp", "backup", "failed", 2000.0, 1.0, phases={"upload": 1.0})], now=2000.0)
    found = values(path)
    assert found["last_success_timestamp_seconds{erp,backup}"] == 1000.0
    assert found["last_run_timestamp_seconds{erp,backup}"] == 2000.0
    assert found["backup_bytes{erp,backup}"] == 12345.0
    assert found["backup_age_seconds{erp,backup}"] == 1010.0
    assert (found["verdict{erp,backup,passed}"], found["verdict{erp,backup,failed}"]) == (0.0, 1.0)
    assert found["duration_seconds{erp,backup,upload}"] == 1.0
    assert "duration_seconds{erp,backup,dump}" not in found
    assert "rto_seconds{erp,objective}" not in found


def test_what_did_not_run_is_kept_and_grows_old(tmp_path: Path) -> None:
    path = tmp_path / "m.prom"
    write_metrics(path, [BACKUP], now=1000.0)
    before = values(path)
    restore = Came("prod", "shop", "restore", "passed", 1500.0, 60.0, outage=1.5, is_restore=True)
    write_metrics(path, [restore, Came("prod", "erp", "cleanup", "passed", 1500.0, 2.0)], now=1500.0)
    after = values(path)
    assert {
        name: after[name] for name in before if "age" not in name and "objective" not in name
    }.items() <= before.items()
    assert after["backup_age_seconds{erp,backup}"] == 510.0
    assert after["outage_seconds{shop,restore}"] == 1.5
    assert after["rto_seconds{shop,measured}"] == 60.0
    assert after["last_success_timestamp_seconds{erp,cleanup}"] == 1500.0


def test_the_time_between_two_backups_is_what_could_have_been_lost(tmp_path: Path) -> None:
    path = tmp_path / "m.prom"
    for taken in (1000.0, 91_000.0):
        write_metrics(path, [Came("prod", "erp", "backup", "passed", taken, 1.0, backup_taken=taken)], now=taken)
    assert values(path)["rpo_seconds{erp,measured}"] == 90_000.0


def test_names_that_need_quoting_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "m.prom"
    name = 'a"b\\c\nd{e="f"},ü'
    write_metrics(path, [Came(name, name, "backup", "passed", 1.0, 1.0)], now=1.0)
    write_metrics(path, [], now=1.0)
    assert ("opsproof_last_run_timestamp_seconds", (name, name, "backup")) in read_metrics(path)


def test_runs_that_write_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.prom"
    names = [f"t{number}" for number in range(12)]
    threads = [
        threading.Thread(target=write_metrics, args=(path, [Came("prod", name, "backup", "passed", 1.0, 1.0)], 1.0))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"last_success_timestamp_seconds{{{name},backup}}" for name in names} <= values(path).keys()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "content", ["prod:\n  hosts:\n", "node_load1 0.5\n", "# a comment of mine\n", 'opsproof_verdict{a="b"} 1\n', "\xff"]
)
def test_somebody_elses_file_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "hosts.yml"
    path.write_text(content, encoding="latin1")
    with pytest.raises(ConfigurationError, match="not a file of this tool's") as caught:
        require_metrics_file(path)
    assert f"mv {path}" in caught.value.hint
    with pytest.raises(ConfigurationError):
        write_metrics(path, [BACKUP], now=1.0)
    assert path.read_text(encoding="latin1") == content


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written") as caught:
        require_metrics_file(tmp_path / "none" / "m.prom")
    assert "no such folder" in caught.value.found
    assert caught.value.hint == f"mkdir -p {tmp_path / 'none'}"
    with pytest.raises(ConfigurationError, match="cannot be written"):
        require_metrics_file(tmp_path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.prom"
    write_metrics(path, [BACKUP], now=1000.0)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigurationError, match="cannot be written") as caught:
        write_metrics(path, [BACKUP], now=2000.0)
    assert "No space left" in caught.value.found
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["m.prom"]
