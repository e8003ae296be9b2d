"""What a release's manifests say of their versions."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from opsproof.errors import HostError
from opsproof.procedures.deploy.odoomodules import manifests_of
from opsproof.procedures.deploy.odooversions import bare, is_older, read_versions, series_of
from opsproof.system.hosts.host import Host
from opsproof.system.releases.package import PackedFile
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
    manifests = manifests_of({name: PackedFile() for name in [*texts, "addons/sale/models.py"]})
    assert set(manifests) == {"sale", "stock", "computed", "broken", "list", "twice"}
    found = read_versions(Host(Connection()), PurePosixPath(tmp_path), manifests)
    assert found == {"sale": "14.0.2.0", "stock": "1.0"}


def test_a_nul_in_a_manifest_gives_nobody_else_s_version(tmp_path: Path) -> None:
    manifests = {}
    for name, text in {"a": "{'version': '1.0'}\0{'version': '9.0'}", "b": "{'version': '2.0'}"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__manifest__.py").write_text(text)
        manifests[name] = (f"{name}/__manifest__.py",)
    found = read_versions(Host(Connection()), PurePosixPath(tmp_path), manifests)
    assert found == {"b": "2.0"}


def test_a_manifest_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Else a module would pass for one that says no version, and nobody would see that it was not updated."""
    (tmp_path / "a" / "__manifest__.py").mkdir(parents=True)
    with pytest.raises(HostError):
        read_versions(Host(Connection()), PurePosixPath(tmp_path), {"a": ("a/__manifest__.py",)})


def test_the_version_of_a_module_behind_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "vendor" / "sale-2").mkdir(parents=True)
    (tmp_path / "vendor" / "sale-2" / "__manifest__.py").write_text("{'version': '2.0'}")
    (tmp_path / "addons").mkdir()
    (tmp_path / "addons" / "sale").symlink_to("../vendor/sale-2")
    files = {"vendor/sale-2/__manifest__.py": PackedFile("a"), "addons/sale": PackedFile(link="../vendor/sale-2")}
    found = read_versions(Host(Connection()), PurePosixPath(tmp_path), manifests_of(files))
    assert found["sale"] == "2.0"


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
