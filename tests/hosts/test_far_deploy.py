"""Deploys of a real remote Odoo: an addon in two releases, two that are broken, the way back, and a first database.

One host is shared: each test begins with what the one before it has left, as the deploys of a project do.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.action_run import ActionRun, Project, require_failure
from tests.lab.debian_host import DebianHost
from tests.lab.odoo_addon import (
    ADDON,
    FAILS_TO_LOAD,
    FAILS_TO_UPDATE,
    FIRST,
    MODEL,
    NOTE,
    SECOND,
    install,
    write_release,
)
from tests.lab.odoo_host import ENVIRONMENT, FILESTORE, TARGET, project_of, variables_of
from tests.lab.odoo_rpc import OdooClient

pytest_plugins = ["tests.lab.lab_hosts"]
pytestmark = pytest.mark.lab
DEPLOY, ROLLBACK = "actions/test_deploy.py", "actions/test_rollback.py"
FOLDER = "/srv/erp"
# With the log in a file, as Odoo's packages have it; and a first database that nobody has to clear of examples.
CONF = f"addons_path = {FOLDER}/current/addons\nlogfile = /var/log/odoo/odoo-server.log\nwithout_demo = all\n"
DATABASES = "SELECT datname, datallowconn, datistemplate FROM pg_database WHERE datname LIKE 'prod%' ORDER BY 1"
OWN = f"SELECT latest_version, state FROM ir_module_module WHERE name = '{ADDON}'"
SERVICE = "systemctl show odoo -p MainPID -p ActiveEnterTimestamp"


@dataclass(frozen=True)
class Erp:
    """A host whose Odoo is deployed to.

    Attributes:
        host: The host.
        project: Where actions are run.
        odoo: As people use it.
        content: Of an attachment that was made before the first deploy.
    """

    host: DebianHost
    project: Project
    odoo: OdooClient
    content: bytes

    def describe(self, login: str = "ops", **deploy: object) -> None:
        """Write the inventory: who logs in, and settings of `deploy`."""
        more = {"health_url": f"{self.odoo.url}/web/login", "deploy_folder": FOLDER, "deploy_user": "ops"}
        own = variables_of(self.host, login, **more, deploy=deploy)
        self.project.write_inventory({ENVIRONMENT: {TARGET: own}})

    def deploy(self, version: str, files: Mapping[str, str], *arguments: str) -> ActionRun:
        """Deploy a release of the addon, to the run's end."""
        release = write_release(self.project.folder, version, files)
        return self.project.run(f"--release={release}", *arguments, action=DEPLOY, env=ENVIRONMENT)

    def must_deploy(self, version: str, files: Mapping[str, str], *arguments: str) -> Mapping[str, str]:
        """Deploy, which must succeed; return what its XML says of it."""
        run = self.deploy(version, files, *arguments)
        assert run.status == 0, run.output
        return run.case("test_after_cleanup").properties

    def roll_back(self, *arguments: str) -> ActionRun:
        """Run the rollback to the release of before, to its end."""
        return self.project.run("--type=release", *arguments, action=ROLLBACK, env=ENVIRONMENT)

    def parcels(self) -> list[str]:
        """Return the names of the parcels, as Odoo has them."""
        return sorted(one["name"] for one in self.odoo.call(MODEL, "search_read", [], ["name"]))

    def has_weights(self) -> bool:
        """Tell whether Odoo knows the second release's field."""
        return "weight" in self.odoo.call(MODEL, "fields_get", [], ["type"])

    def keeps_files(self) -> bool:
        """Tell whether Odoo finds the attachment that was made before the first deploy, byte for byte."""
        (attachment,) = self.odoo.call("ir.attachment", "search", [["name", "=", "proof"]])
        return self.odoo.read(attachment) == self.content

    @property
    def current(self) -> str:
        """The name of the release that is current."""
        return self.host.inside(f"readlink {FOLDER}/current").rpartition("/")[2]

    def look(self) -> dict[str, Any]:
        """Return what is live, and all that is beside it."""
        return {
            "current": self.current,
            "releases": self.host.inside(f"ls -1A {FOLDER} {FOLDER}/releases"),
            "databases": self.host.sql(DATABASES),
            "oid": self.host.sql("SELECT oid FROM pg_database WHERE datname = 'prod'"),
            "module": self.host.sql(OWN),
            "filestores": self.host.inside(f"ls -1A {FILESTORE}/.."),
            "parcels": self.parcels(),
            "fields": self.has_weights(),
            "attachment": self.keeps_files(),
        }


@pytest.fixture(scope="module")
def erp(lab_host: DebianHost) -> Iterator[Erp]:
    """A host that was never deployed to, and has an attachment."""
    lab_host.await_odoo()
    odoo, content = OdooClient(lab_host.odoo_url), os.urandom(100_000)
    odoo.attach("proof", content)
    lab_host.inside(f"install -d -o ops -g ops {FOLDER}; printf '{CONF}' >>/etc/odoo/odoo.conf")
    with project_of(lab_host, "ops") as project:
        made = Erp(lab_host, project, odoo, content)
        made.describe()
        yield made


def fetch(url: str, since: str = "") -> tuple[int, str, str]:
    """Fetch a file as a browser does that has it already; return status, text and the time that the server gives it."""
    asked = urllib.request.Request(url, headers={"If-Modified-Since": since} if since else {})
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.read().decode(), answer.headers["Last-Modified"]
    except urllib.error.HTTPError as error:
        return error.code, "", since


def test_the_second_release_updates_the_module_that_the_first_has_brought(erp: Erp) -> None:
    first = erp.must_deploy("1.0", FIRST)
    assert (first["deploy_previous"], first["deploy_changes"], first["deploy_parked"]) == ("", "", "")
    one = erp.current
    # A new module is nobody's until somebody installs it.
    assert erp.host.sql(OWN) == ""
    install(erp.odoo)
    erp.odoo.call(MODEL, "create", {"name": "Crate"})
    assert not erp.has_weights()
    _, note, since = fetch(f"{erp.odoo.url}/{NOTE}")
    assert note == "note 1.0\n"

    second = erp.must_deploy("2.0", SECOND)
    assert (second["deploy_previous"], second["deploy_changes"]) == (one, ADDON)
    assert erp.has_weights()
    assert erp.odoo.call(MODEL, "search_read", [["name", "=", "Crate"]], ["weight"])[0]["weight"] == 2.5
    assert erp.parcels() == ["Crate", "Pallet"]
    assert erp.keeps_files()
    assert erp.host.sql(OWN) == "14.0.2.0|installed"
    assert fetch(f"{erp.odoo.url}/{NOTE}", since)[:2] == (200, "note 2.0\n")
    # What was live is kept, whole, and out of every Odoo's sight.
    parked = second["deploy_parked"]
    assert erp.host.sql(DATABASES).splitlines() == ["prod|t|f", f"{parked}|f|f"]
    assert erp.odoo.databases() == ["prod"]
    owners = erp.host.sql("SELECT DISTINCT datdba::regrole FROM pg_database WHERE datname LIKE 'prod%'")
    assert owners == "odoo"
    # Odoo may read the release, and only deploy_user may write it.
    modes = erp.host.inside(f"find {FOLDER}/releases/{erp.current}/ -printf '%u:%g %m %y\\n' | sort -u")
    assert modes.splitlines() == ["ops:ops 644 f", "ops:ops 755 d"]
    # What an update as root would have left to root.
    assert erp.host.inside(f"find {FILESTORE} {FILESTORE}/.. ! -user odoo") == ""
    assert erp.host.inside(f"ls -1A {FILESTORE}/..") == "prod"


def test_a_release_that_fails_to_update_leaves_what_was_live(erp: Erp) -> None:
    before = erp.look()
    run = erp.deploy("3.0", FAILS_TO_UPDATE)
    said = require_failure(run, "test_update_database", f"Odoo could not update {ADDON}", "cannot be migrated")
    assert "rehearse: true" in said
    assert erp.look() == before
    assert (before["parcels"], before["attachment"]) == (["Crate", "Pallet"], True)


def test_a_release_that_python_cannot_load_fails_while_people_still_work(erp: Erp) -> None:
    before, service = erp.look(), erp.host.inside(SERVICE)
    erp.describe(rehearse=True)
    run = erp.deploy("3.0", FAILS_TO_LOAD)
    erp.describe()
    require_failure(run, "test_plan_update", f"Odoo could not update {ADDON}", "cannot import name 'missing'")
    assert erp.look() == before
    assert erp.host.inside(SERVICE) == service


def test_the_way_back_takes_the_data_of_before_along(erp: Erp) -> None:
    before = erp.look()
    message = require_failure(erp.roll_back(), "test_database_goes_with_it", "Odoo has no way down", f"others: {ADDON}")
    assert erp.look() == before
    (backup,) = {word for word in message.split() if word.startswith("--backup=")}
    run = erp.roll_back(backup)
    assert run.status == 0, run.output
    after = erp.look()
    assert after["current"] < before["current"]
    assert (after["module"], after["fields"], after["parcels"]) == ("14.0.1.0|installed", False, ["Crate"])
    assert after["attachment"]


def test_a_first_database_is_made_by_odoo(erp: Erp) -> None:
    erp.host.inside(f"systemctl stop odoo; cd /; runuser -u postgres -- dropdb prod; rm -r {FILESTORE}")
    erp.describe("root")
    made = erp.must_deploy("2.0", SECOND, "--allow-data-loss")
    assert (made["deploy_changes"], made["deploy_backup"], made["deploy_parked"]) == ("base", "", "")
    assert erp.odoo.call("ir.module.module", "search_count", [["state", "=", "installed"]]) > 1
    assert erp.host.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'prod'") == "odoo"
    # Its files are behind its own name, and no other.
    stored = erp.host.sql("SELECT DISTINCT store_fname FROM ir_attachment WHERE store_fname <> ''").split()
    files = erp.host.inside(f"cd {FILESTORE} && find . -type f ! -path '*/checklist/*' -printf '%P %u\\n'").splitlines()
    assert stored
    assert {f"{name} odoo" for name in stored} <= set(files)
    assert erp.host.inside(f"ls -1A {FILESTORE}/..") == "prod"
