"""What a release's manifests say of their versions."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from opsproof.procedures.deploy.odooversions import is_version, manifests_of, read_versions
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
    assert is_version("14.0.2.0", "14.0.2.0")
    assert is_version("14.0.2.0", "2.0")
    assert not is_version("14.0.12.0", "2.0")
    assert not is_version("14.0.2.0", "2.1")
    assert not is_version(None, "2.0")
