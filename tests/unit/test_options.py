"""The command line as a value: what cannot be read is an error before anything else happens."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from opsproof.errors import ConfigurationError
from opsproof.plugin.options import Options, pytest_addoption, pytest_configure, read_options
from opsproof.plugin.optiontexts import Source, read_source, read_time


class CommandLine:
    """pytest's parser and config as far as options go, over a real argparse."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(allow_abbrev=False)
        self.option = argparse.Namespace()
        self.stash = pytest.Stash()

    def getgroup(self, *_: str) -> CommandLine:
        return self

    def addoption(self, name: str, **settings: Any) -> None:
        self.parser.add_argument(name, **settings)

    def getoption(self, name: str) -> Any:
        return getattr(self.option, name.removeprefix("--").replace("-", "_"))


def read(*arguments: str) -> Options:
    line = CommandLine()
    pytest_addoption(cast("pytest.Parser", line))
    line.option = line.parser.parse_args(arguments)
    return read_options(cast("pytest.Config", line), "")


def test_what_was_not_said_has_the_safe_default() -> None:
    options = read()
    assert (options.backup, options.at, options.source) == ("latest", None, None)
    assert (options.confirm, options.role_map) == ((), {})
    assert options.safety_backup
    assert not options.in_place
    assert not options.undo
    assert (options.older_than, options.deep, options.metrics_file, options.nagios) == (None, False, None, False)


def test_what_was_said_is_kept() -> None:
    options = read(
        *("--backup= acme_2024-03-05_01-02-03 ", "--from=prod/erp", "--confirm=erp", "--confirm=shop"),
        *("--no-safety-backup", "--in-place", "--undo", "--map-role=odoo=staging", "--map-role=a=b=c"),
    )
    assert options.backup == "acme_2024-03-05_01-02-03"
    assert options.source == Source("prod", "erp")
    assert options.confirm == ("erp", "shop")
    assert not options.safety_backup
    assert options.in_place
    assert options.undo
    assert options.role_map == {"odoo": "staging", "a": "b=c"}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31 02:00", datetime(2026, 1, 31, 2, tzinfo=UTC)),
        (" 2026-01-31T02:00:07 ", datetime(2026, 1, 31, 2, 0, 7, tzinfo=UTC)),
        ("2026-01-31T02:00:00Z", datetime(2026, 1, 31, 2, tzinfo=UTC)),
        ("2026-01-31 02:00 Z", datetime(2026, 1, 31, 2, tzinfo=UTC)),
        ("2026-01-31T02:00+03:00", datetime(2026, 1, 30, 23, tzinfo=UTC)),
        ("2026-01-31 02:00 +03:00", datetime(2026, 1, 30, 23, tzinfo=UTC)),
        ("2026-01-31 02:00 -0530", datetime(2026, 1, 31, 7, 30, tzinfo=UTC)),
    ],
)
def test_a_time_is_utc_unless_it_says_another_zone(text: str, moment: datetime) -> None:
    read_moment = read(f"--at={text}").at
    assert read_moment == moment
    assert read_moment.tzinfo is UTC


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/New_York"])
def test_this_machine_s_zone_does_not_count(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    assert read_time("2026-01-31 02:00") == datetime(2026, 1, 31, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "31.01.2026", "2026-02-30", "2026-01-31 25:00", "02:00", "0001-01-01T00:00+14:00"]
)
def test_what_is_no_time_is_answered_with_examples(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no time") as caught:
        read(f"--at={text}")
    for example in caught.value.hint.split("   "):
        assert read_time(example.removeprefix("--at=").strip("'")).year == 2026


def test_a_time_and_a_backup_contradict_each_other() -> None:
    with pytest.raises(ConfigurationError, match="--at and --backup"):
        read("--at=2026-01-31", "--backup=acme_2024-03-05_01-02-03")
    assert read("--at=2026-01-31", "--backup=latest").backup == "latest"


@pytest.mark.parametrize("text", ["", " "])
def test_a_backup_that_is_an_empty_variable_is_not_the_latest(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--backup names nothing"):
        read(f"--backup={text}")


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "nan", "inf", "1e30"])
def test_a_step_s_time_is_a_number_of_seconds(text: str) -> None:
    assert (read().step_timeout, read("--step-timeout=0.5").step_timeout) == (None, 0.5)
    with pytest.raises(ConfigurationError, match="is no number of seconds") as caught:
        read(f"--step-timeout={text}")
    assert "--step-timeout=3600" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "span"), [("30d", timedelta(days=30)), (" 1.5h ", timedelta(minutes=90)), ("100y", timedelta(days=36_525))]
)
def test_an_age_is_a_span(text: str, span: timedelta) -> None:
    assert read(f"--older-than={text}").older_than == span


@pytest.mark.parametrize(
    "text", ["", "30", "d", "-1d", "0d", "0.0000000001s", "101y", "30 days", "1e3d", "9" * 400 + "d"]
)
def test_an_age_that_is_none_removes_nothing(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no span of time") as caught:
        read(f"--older-than={text}")
    assert caught.value.hint == "--older-than=30d"
    assert "as in 30d" in caught.value.expected


def test_what_checks_and_monitoring_are_told() -> None:
    options = read("--deep", "--metrics-file=run/opsproof.prom", "--nagios")
    assert (options.deep, options.metrics_file, options.nagios) == (True, Path("run/opsproof.prom"), True)
    with pytest.raises(ConfigurationError, match="--metrics-file names nothing"):
        read("--metrics-file=")


def test_testinfra_never_sees_nagios() -> None:
    """Its own answer would be OK where nothing ran."""
    line = CommandLine()
    line.addoption("--nagios", action="store_true", dest="nagios", help="testinfra's")
    pytest_addoption(cast("pytest.Parser", line))
    line.option = line.parser.parse_args(["--nagios"])
    config = cast("pytest.Config", line)
    pytest_configure(config)
    assert not line.option.nagios
    assert [read_options(config, "").nagios for _ in range(2)] == [True, True]


def test_from_names_an_environment_or_a_target_of_it() -> None:
    assert read_source("prod") == Source("prod", None)
    assert read_source(" prod/erp ") == Source("prod", "erp")
    for text in ("", "/erp", "prod/", "/"):
        with pytest.raises(ConfigurationError, match="names no environment or no target"):
            read(f"--from={text}")


@pytest.mark.parametrize("pair", ["odoo", "=new", "old=", "=", ""])
def test_a_map_of_roles_needs_both(pair: str) -> None:
    with pytest.raises(ConfigurationError, match="does not say which role"):
        read(f"--map-role={pair}")


def test_a_role_is_mapped_once() -> None:
    assert read("--map-role=a=b", "--map-role=a=b").role_map == {"a": "b"}
    with pytest.raises(ConfigurationError, match="two things of the role a") as caught:
        read("--map-role=a=b", "--map-role=a=c")
    assert caught.value.found == "b and c"


def test_what_a_deploy_is_told() -> None:
    said = read("--release=dist/app.zip", "--reuse-backup=10m", "--to-release=20260131020000", "--type=release")
    assert (said.release, said.reuse_backup) == ("dist/app.zip", timedelta(minutes=10))
    assert (said.to_release, said.rollback) == ("20260131020000", "release")
    assert (read().release, read().reuse_backup, read().to_release) == (None, None, None)
    with pytest.raises(ConfigurationError, match="--reuse-backup='ten' is no span"):
        read("--reuse-backup=ten")
