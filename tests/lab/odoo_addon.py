"""Releases of a small addon, as a project of its own has them: `addons/depot`, which Odoo 14 installs in a second."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.lab.odoo_rpc import OdooClient

ADDON, MODEL = "depot", "depot.parcel"
# Served as it is, and of the same size in each release.
NOTE = "depot/static/note.txt"
MODELS = """\
from odoo import fields, models


class Parcel(models.Model):
    _name = "depot.parcel"
    _description = "Parcel"

    name = fields.Char(required=True)
{more}"""
ACCESS = """\
id,name,model_id:id,group_id:id,perm_read,perm_write,perm_create,perm_unlink
access_parcel,parcel,model_depot_parcel,base.group_user,1,1,1,1
"""
WEIGHT = "    weight = fields.Float(default=2.5)\n"
PALLET = """\
<odoo>
  <record id="pallet" model="depot.parcel"><field name="name">Pallet</field><field name="weight">300</field></record>
</odoo>
"""
RAISES = 'def migrate(cr, version):\n    raise ValueError("the depot cannot be migrated")\n'
FIRST: Mapping[str, str] = {"__init__.py": "from . import models\n", "models.py": MODELS.format(more="")}
SECOND: Mapping[str, str] = {**FIRST, "models.py": MODELS.format(more=WEIGHT), "data.xml": PALLET}
# One that fails only once all is loaded and its tables are changed; and one that Python cannot even load.
FAILS_TO_UPDATE: Mapping[str, str] = {**SECOND, "migrations/14.0.3.0/post-fail.py": RAISES}
FAILS_TO_LOAD: Mapping[str, str] = {**SECOND, "__init__.py": "from . import models, missing\n"}


def write_release(folder: Path, version: str, files: Mapping[str, str]) -> str:
    """Write a release's source; return its path.

    Args:
        folder: Where to.
        version: Of the addon, without Odoo's own.
        files: Of the addon, besides its manifest and its access rights.
    """
    source = Path(tempfile.mkdtemp(prefix=f"release-{version}-", dir=folder))
    addon = source / "addons" / ADDON
    data = ["access/ir.model.access.csv", *(name for name in files if name.endswith(".xml"))]
    manifest = {"name": "Depot", "version": f"14.0.{version}", "depends": ["base"], "data": data, "license": "LGPL-3"}
    more = {"__manifest__.py": f"{manifest!r}\n", data[0]: ACCESS, "static/note.txt": f"note {version}\n"}
    for name, text in {**files, **more}.items():
        (addon / name).parent.mkdir(parents=True, exist_ok=True)
        (addon / name).write_text(text)
    return str(source)


def install(odoo: OdooClient) -> None:
    """Install the addon, as an administrator does."""
    odoo.call("ir.module.module", "update_list")
    found = odoo.call("ir.module.module", "search", [["name", "=", ADDON]])
    odoo.call("ir.module.module", "button_immediate_install", found)
