"""What a release's manifests say of their versions."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from opsproof.procedures.deploy.odooversions import bare, is_older, manifests_of, read_versions, series_of
from opsproof.system.hosts.host import Host
from opsproof.target import Connection


def test_a_version_is_known_where_one_manifest_says_it(tmp_path: Path) -> None:
    texts = {
        "addons/sale/__manifest__.py": "# Sale\n{'name': 'Vente française', 'version': '14.0.2.0'}\n",
        "addons/stock/__openerp__.py": "{'name': 'Stock'}",
        "addons/computed/__manifest__.py": "{'version': VERSION}",
        "addons/broken/__manifest__.py": "{'version': ",
        "addons/list/__manifest__.py": "['version']",
        "addons/twice/__manifest__.py": "{'version': '1.0'}",
        "vendor/twice/__manifest__.py": "{'version': '2.0'}",
        "__manifest__.py": "{'version': '3.0'}",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    manifests = manifests_of([*texts, "addons/sale/models.py"])
    assert set(manifests) == {"sale", "stock", "computed", "broken", "list", "twice"}
    found = read_versions(Host(Connection()), PurePosixPath(tmp_path), manifests)
    assert found == {"sale": "14.0.2.0", "stock": "1.0"}


def test_odoo_puts_its_own_version_before_a_module_s() -> None:
    series = series_of("14.0.1.3")
    assert bare("14.0.2.0", series) == bare("2.0", series) == "2.0"
    assert bare("14.0.12.0", series) != bare("2.0", series)
    assert bare(None, series) == ""
    assert bare("saas~17.1.1.3", series_of("saas~17.1.1.3")) == "1.3"


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [
        ("1.9", "1.10", True),
        ("1.10", "1.9", False),
        ("1.0", "1.0.1", True),
        ("2.0", "2.0", False),
        ("1.0-rc", "2", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, than: str, older: bool) -> None:
    assert is_older(version, than) is older
