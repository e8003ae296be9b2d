"""What an application says to an Odoo: over XML-RPC, as the administrator that its demo data has."""

from __future__ import annotations

import base64
import xmlrpc.client
from typing import Any

USER, PASSWORD = "admin", "admin"


class OdooClient:
    """One Odoo and one of its databases.

    Args:
        url: Of its HTTP port.
        dbname: The database.
    """

    def __init__(self, url: str, dbname: str = "prod") -> None:
        self.url = url
        self._dbname = dbname

    def databases(self) -> list[str]:
        """Return what its database selector shows, which is also what its cron takes in."""
        found: Any = xmlrpc.client.ServerProxy(f"{self.url}/xmlrpc/2/db").list()
        return list(found)

    def call(self, model: str, method: str, *arguments: object, **named: object) -> Any:
        """Call a method of a model."""
        common = xmlrpc.client.ServerProxy(f"{self.url}/xmlrpc/2/common")
        uid = common.authenticate(self._dbname, USER, PASSWORD, {})
        models = xmlrpc.client.ServerProxy(f"{self.url}/xmlrpc/2/object")
        return models.execute_kw(self._dbname, uid, PASSWORD, model, method, list(arguments), named)

    def attach(self, name: str, content: bytes) -> int:
        """Make an attachment; return its id."""
        values = {"name": name, "datas": base64.b64encode(content).decode()}
        return int(self.call("ir.attachment", "create", values))

    def read(self, attachment: int) -> bytes:
        """Return an attachment's content, as Odoo finds it."""
        (found,) = self.call("ir.attachment", "read", [attachment], fields=["datas"])
        return base64.b64decode(found["datas"])
