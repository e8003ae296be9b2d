"""Whatever stands in an odoo.conf or in an inventory, there is a value or an error of ours: never another exception."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from opsproof.errors import ConfigurationError, OpsproofError
from opsproof.inventory.schema import OUR_VARIABLES, HostVariables, validated_host
from opsproof.odoo import OdooConf, parse_odoo_conf, read_odoo_conf

SEARCH = settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
KEYS = ["db_host", "db_port", "db_user", "db_password", "db_name", "data_dir", "db_sslmode", "[options]", "[", "]"]
LINES = st.lists(
    st.builds(
        lambda key, sign, value, end: f"{key}{sign}{value}{end}",
        st.sampled_from(KEYS) | st.text(max_size=8),
        st.sampled_from([" = ", "=", ":", "", " "]),
        st.sampled_from(["False", "5432", "²", "٣", "9" * 5_000, "-1", "%(x)s", "a,b,,", "\0", "/srv"])
        | st.text(max_size=12),
        st.sampled_from(["\n", "\r\n", "\r", "\n\t", "\x85", "\u2028", "\x0c"]),
    ),
    max_size=8,
).map("".join)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.binary(max_size=5)
    | st.dates()
    | st.sampled_from(["none", "/srv", "http://x", "AES256", "full", "123456789012", 10**400, float("nan"), "\ud800"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["path", "content_addressed", "bucket", "prefix", "region", "endpoint_url", "bukcet"])
            | SCALARS.filter(lambda key: not isinstance(key, float)),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
HOSTS = st.dictionaries(st.sampled_from(OUR_VARIABLES) | st.text(max_size=12), VALUES, max_size=6)


def value_or_error(text: str) -> OdooConf | None:
    try:
        return parse_odoo_conf(text, "/etc/odoo.conf")
    except OpsproofError as error:
        told = error
    assert isinstance(told, ConfigurationError)
    assert told.expected
    assert told.found
    return None


@SEARCH
@given(LINES | st.text() | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
@example("[options]\ndb_port = " + "9" * 5_000)
@example("[options]\ndb_port = ²")
@example("\ufeff[options]\ndb_name = a")
@example("[options]\n db_name = a\n  b\n")
@example("[DEFAULT]\nx = 1\n[options]\n[options]\n")
def test_any_odoo_conf_gives_a_value_or_an_error_of_ours(text: str) -> None:
    for start in ("", "[options]\n"):
        conf = value_or_error(start + text)
        if conf is not None:
            assert 0 < conf.port < 65536
            assert all(name.strip() == name != "" for name in conf.db_names)


@SEARCH
@given(st.binary() | LINES.map(lambda text: b"[options]\n" + text.encode("utf-8", "surrogatepass")))
@example(b"[options]\ndb_password = caf\xe9\n")
@example(b"\xff\xfe[\x00o\x00")
def test_any_file_gives_a_value_or_an_error_of_ours(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "odoo.conf"
    path.write_bytes(data)
    with contextlib.suppress(OpsproofError):
        assert isinstance(read_odoo_conf(str(path)), OdooConf)


@pytest.mark.parametrize("path", ["/nowhere", "/", "/etc/shadow/x", "/a\0b", "/" + "n" * 5_000, "\ud800", ""])
def test_any_path_gives_an_error_of_ours(path: str) -> None:
    with pytest.raises(OpsproofError):
        read_odoo_conf(path)


@SEARCH
@given(HOSTS, st.sampled_from([("hosts.yml", 3), ("hosts.yml", 0)]))
@example({"lock_timeout": 10**400}, ("hosts.yml", 1))
@example({"filestore": {1: 2}}, ("hosts.yml", 1))
@example({"store": {None: None, "bukcet": "x"}}, ("hosts.yml", 1))
@example({"dbname": "\ud800"}, ("hosts.yml", 1))
def test_any_host_gives_a_value_or_an_error_of_ours(variables: dict[str, Any], place: tuple[str, int]) -> None:
    resolved = {key: value for key, value in variables.items() if key in OUR_VARIABLES}
    try:
        assert isinstance(validated_host("erp", resolved, variables, lambda *keys: place), HostVariables)
    except OpsproofError as error:
        told = error
    else:
        return
    assert isinstance(told, ConfigurationError)
    assert told.found
    assert told.hint
