"""The header: what was chosen and where from, never a secret."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from opsproof.report import header
from opsproof.target import (
    DatabaseAddress,
    DirectoryStoreSettings,
    Environment,
    FilestoreSettings,
    S3StoreSettings,
    Secret,
    Target,
)

DATABASE = DatabaseAddress("acme", "db.example", 5433, "odoo", Secret("hunter2-and-more"))
ON_S3 = Target(
    name="erp",
    environment="prod",
    database=DATABASE,
    store=S3StoreSettings("bucket", "me-south-1", prefix="team/", endpoint_url="https://s3.example"),
    customer="acme-corp",
    filestore=FilestoreSettings(PurePosixPath("/srv/filestore/acme"), True, "/etc/odoo.conf"),
    sources={"dbname": "hosts.yml", "filestore": "/etc/odoo.conf", "store": "hosts.yml"},
)
IN_A_FOLDER = Target(
    name="wiki",
    environment="prod",
    database=DatabaseAddress("wiki"),
    store=DirectoryStoreSettings(Path("/backups")),
    customer="",
    filestore=None,
)


def shown(*targets: Target, dry_run: bool = False) -> list[str]:
    environment = Environment("prod", "hosts.yml", targets)
    return list(header.lines(environment, {"erp": "PostgreSQL 15.18, clients 15.18"}, dry_run=dry_run))


def test_each_setting_stands_with_where_it_came_from() -> None:
    assert shown(ON_S3) == [
        "opsproof: environment prod from hosts.yml",
        "  target erp",
        "    database   acme on db.example:5433, role odoo",
        "    server     PostgreSQL 15.18, clients 15.18",
        "    filestore  /srv/filestore/acme (content-addressed)",
        "    store      s3://bucket/team/acme-corp/backups/, region me-south-1 at https://s3.example",
        "    from       /etc/odoo.conf: filestore",
        "    from       hosts.yml: dbname, store",
    ]


def test_a_target_without_files_on_a_socket_with_a_folder_as_its_store() -> None:
    assert shown(IN_A_FOLDER)[1:] == [
        "  target wiki",
        "    database   wiki on local socket:5432, role of this account",
        "    server     not known",
        "    filestore  none",
        "    store      folder /backups",
    ]


def test_a_dry_run_says_so_first() -> None:
    assert "nothing will change" in shown(ON_S3, dry_run=True)[0]
    assert "nothing will change" not in shown(ON_S3)[0]


def test_every_target_is_shown_and_no_secret() -> None:
    text = "\n".join(shown(ON_S3, IN_A_FOLDER))
    assert "target erp" in text
    assert "target wiki" in text
    assert "hunter2" not in text
