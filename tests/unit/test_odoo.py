"""What is known of Odoo: odoo.conf, the filestore's names."""

from __future__ import annotations

import hashlib
import os
import pwd
from pathlib import Path, PurePosixPath

import pytest

from opsproof.errors import ConfigurationError
from opsproof.odoo import default_data_dir, filestore_path, is_attachment_name, parse_odoo_conf, read_odoo_conf

WHOLE = """[options]
admin_passwd = master
db_host = db.example
db_port = 5433
db_user = odoo
db_password = p%40#;%(x)s
db_name = acme
db_sslmode = require
data_dir = /srv/odoo/data
addons_path = /a,
    /b
"""


def test_every_setting_is_read_as_odoo_reads_it() -> None:
    conf = parse_odoo_conf(WHOLE, "/etc/odoo/odoo.conf")

    address = conf.address(None)
    assert (address.name, address.host, address.port, address.user) == ("acme", "db.example", 5433, "odoo")
    assert address.password is not None
    assert address.password.reveal() == "p%40#;%(x)s"
    assert address.parameters == {"sslmode": "require"}
    assert conf.data_dir == PurePosixPath("/srv/odoo/data")
    assert conf.addons_path == ("/a", "/b")
    assert "p%40" not in repr(conf)


@pytest.mark.parametrize("unset", ["False", "false", ""])
def test_false_and_empty_are_unset(unset: str) -> None:
    keys = ("db_host", "db_port", "db_user", "db_password", "db_name", "data_dir", "db_sslmode", "addons_path")
    conf = parse_odoo_conf("[options]\n" + "\n".join(f"{key} = {unset}" for key in keys), "x.conf")

    assert conf == parse_odoo_conf("[options]\n", "x.conf")
    assert (conf.host, conf.port, conf.user, conf.password) == ("", 5432, "", None)
    assert (conf.db_names, conf.data_dir, conf.addons_path, conf.parameters) == ((), None, (), {})


def test_dbname_is_taken_from_the_list_of_db_name() -> None:
    conf = parse_odoo_conf("[options]\ndb_name = one, two\n", "x.conf")

    assert conf.db_names == ("one", "two")
    assert conf.database_name("two") == "two"


def test_dbname_outside_db_name_is_refused_with_both() -> None:
    conf = parse_odoo_conf("[options]\ndb_name = one, two\n", "x.conf")

    with pytest.raises(ConfigurationError, match=r"dbname contradicts db_name in x.conf") as caught:
        conf.database_name("three")
    assert caught.value.expected == "one of db_name: one, two"
    assert caught.value.found == "dbname: three"


@pytest.mark.parametrize("text", ["", "db_name = one, two"])
def test_without_a_choice_of_database_nothing_is_guessed(text: str) -> None:
    conf = parse_odoo_conf(f"[options]\n{text}\n", "x.conf")

    with pytest.raises(ConfigurationError, match=r"Nothing says which database of x\.conf is meant") as caught:
        conf.database_name(None)
    assert "add `dbname: " in caught.value.hint


def test_a_file_without_options_names_the_sections_it_has() -> None:
    with pytest.raises(ConfigurationError, match=r"no section \[options\]: x.conf") as caught:
        parse_odoo_conf("[queue_job]\nchannels = root:2\n", "x.conf")
    assert caught.value.found == "[queue_job]"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("db_password = hush\n", 1),
        ("[options]\ndb_host = x\ndb_password = hush\ndb_password = hush2\n", 4),
        ("[options]\ndb_host = x\nhush hush\n", 3),
        ("[options]\ndb_user = a\n[options]\ndb_password = hush\n", 3),
    ],
)
def test_a_broken_file_is_named_by_line_and_never_quoted(text: str, line: int) -> None:
    with pytest.raises(ConfigurationError, match=r"not an INI file: x\.conf") as caught:
        parse_odoo_conf(text, "x.conf")
    assert caught.value.found.startswith(f"line {line}: ")
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("port", ["0", "65536", "abc", "-1", "²"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(ConfigurationError, match=r"db_port in x.conf is not a port"):
        parse_odoo_conf(f"[options]\ndb_port = {port}\n", "x.conf")


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    path = str(tmp_path / "none.conf")
    with pytest.raises(ConfigurationError, match=f"odoo.conf not found: {path}"):
        read_odoo_conf(path)


def test_a_folder_and_a_file_that_is_no_text_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary.conf"
    binary.write_bytes(b"[options]\ndb_user = caf\xe9\n")

    with pytest.raises(ConfigurationError, match=r"odoo.conf cannot be read") as caught:
        read_odoo_conf(str(tmp_path))
    assert caught.value.found == os.strerror(21)
    with pytest.raises(ConfigurationError, match=r"odoo.conf is not UTF-8 text"):
        read_odoo_conf(str(binary))


def test_the_default_data_dir_is_in_the_home_of_who_runs_odoo() -> None:
    account = next(one for one in pwd.getpwall() if os.access(one.pw_dir, os.R_OK | os.X_OK))

    assert default_data_dir([account.pw_name]) == PurePosixPath(account.pw_dir) / ".local/share/Odoo"
    assert default_data_dir(["nobody-of-this-name"]) == PurePosixPath("/var/lib/odoo")


def test_the_filestore_is_below_data_dir() -> None:
    assert filestore_path(PurePosixPath("/d"), "acme") == PurePosixPath("/d/filestore/acme")


@pytest.mark.parametrize("name", ["", "..", "a/b", "."])
def test_a_name_that_leads_out_of_the_filestore_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a filestore"):
        filestore_path(PurePosixPath("/d"), name)


def test_attachments_are_told_from_other_files() -> None:
    sha1 = hashlib.sha1(b"content").hexdigest()

    assert is_attachment_name(f"{sha1[:2]}/{sha1}")
    assert is_attachment_name(f"{sha1[:3]}/{sha1}")
    wrong = (f"00/{sha1}", f"checklist/{sha1[:2]}/{sha1}", sha1, f"{sha1[:2]}/{sha1}x", f"{sha1[:2]}/{sha1[:-1]}")
    assert not any(is_attachment_name(name) for name in [*wrong, f"{sha1[:2]}/{sha1}\n"])
