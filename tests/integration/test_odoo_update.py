"""Odoo's part of a deploy: which modules differ, and their update in a copy of the database, by a stand-in for Odoo."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from opsproof.errors import CommandFailed, ConfigurationError, ProofError
from opsproof.journal import Journal, Redactor
from opsproof.procedures.deploy.deploying import DeployRequest
from opsproof.procedures.deploy.odoomodules import modules_of
from opsproof.procedures.deploy.procedure import Deploy
from opsproof.procedures.rollback.goingback import Going
from opsproof.procedures.rollback.release import ReleaseRollback
from opsproof.system.releases.package import PackedFile
from opsproof.system.store import open_store
from opsproof.target import DeploySettings, DirectoryStoreSettings, FilestoreSettings, Target
from tests.lab.application import Application, running_application
from tests.lab.deployable import STEPS
from tests.lab.postgres_server import PostgresServer

# It does what Odoo does with -u: it runs the modules' code on the database that -d names, and says what it has read.
ODOO = f"""#!{sys.executable}
import configparser, json, pathlib, sys
import psycopg
words = dict(zip(sys.argv[1:], sys.argv[2:]))
name, modules = words["-d"], words["-u"].split(",")
conf = configparser.RawConfigParser()
conf.read(words["-c"])
options = dict(conf.items("options"))
addons = [one for one in sys.argv if one.startswith("--addons-path=")][0].partition("=")[2]
if (pathlib.Path(addons) / "fails").exists():
    sys.exit("a view is broken")
with psycopg.connect(host=options["db_host"], port=options["db_port"], user=options["db_user"],
                     password=options["db_password"], dbname=name) as connection:
    found = connection.execute("SELECT FROM ir_config_parameter WHERE key = 'database.is_neutralized'").fetchone()
    with (pathlib.Path(__file__).parent / "seen").open("a") as seen:
        print(json.dumps({{"database": name, "neutralized": found is not None}}), file=seen)
    for module in [] if (pathlib.Path(addons) / "lies").exists() else modules:
        text = (pathlib.Path(addons) / module / "__manifest__.py").read_text()
        version, state = eval(text)["version"], "installed" if "stuck" not in text else "to upgrade"
        connection.execute("UPDATE ir_module_module SET latest_version = %s, state = %s WHERE name = %s",
                           (version, state, module))
files = pathlib.Path(options["data_dir"]) / "filestore" / name
(files / "checklist" / "touched").write_text(json.dumps(sys.argv[1:]))
"""
ROLLBACK_STEPS: tuple[Callable[[ReleaseRollback], object], ...] = (
    ReleaseRollback.find_server,
    ReleaseRollback.require_nothing_unfinished,
    ReleaseRollback.choose_release,
    ReleaseRollback.compare_database,
    ReleaseRollback.examine,
    ReleaseRollback.require_confirmation,
    ReleaseRollback.take_lock,
    ReleaseRollback.take_safety_backup,
    ReleaseRollback.prepare_database,
    ReleaseRollback.stop_services,
    ReleaseRollback.change_database,
    ReleaseRollback.flip,
    ReleaseRollback.start_services,
    ReleaseRollback.wait_for_health,
    ReleaseRollback.validate,
    ReleaseRollback.finish,
)
VERSIONS = "SELECT name, latest_version FROM ir_module_module WHERE state = 'installed' ORDER BY 1"


def manifest(version: str, more: str = "") -> str:
    return f"{{'name': 'Sale', 'version': {version!r}}}  # {more}\n"


def test_a_module_is_another_when_any_of_its_files_is() -> None:
    files = {
        "addons/sale/__manifest__.py": PackedFile("a"),
        "addons/sale/models/order.py": PackedFile("b"),
        "addons/stock/__openerp__.py": PackedFile("c"),
        "README": PackedFile("d"),
    }
    first = modules_of(files)
    assert set(first) == {"sale", "stock"}
    second = modules_of({**files, "addons/sale/models/order.py": PackedFile("e"), "README": PackedFile("f")})
    assert {name for name in first if first[name] != second[name]} == {"sale"}
    compiled = {**files, "addons/sale/__pycache__/order.pyc": PackedFile("g")}
    assert modules_of(compiled) == first
    # Which of two folders of one name counts, only odoo.conf knows.
    twice = {**files, "vendor/sale/__manifest__.py": PackedFile("a")}
    assert modules_of({**twice, "addons/sale/models/order.py": PackedFile("e")})["sale"] != modules_of(twice)["sale"]
    assert modules_of({**twice, "vendor/sale/__manifest__.py": PackedFile("e")})["sale"] != modules_of(twice)["sale"]


def test_a_module_behind_a_link_is_called_as_the_link_is() -> None:
    files = {
        "vendor/sale-2.1/__manifest__.py": PackedFile("a"),
        "vendor/sale-2.1/models.py": PackedFile("b"),
        "vendor/stock/__manifest__.py": PackedFile("c"),
        "vendor/newer/stock/__manifest__.py": PackedFile("d"),
        "addons/sale": PackedFile(link="../vendor/sale-2.1"),
        "addons/stock": PackedFile(link="../vendor/stock"),
    }
    first = modules_of(files)
    changed = modules_of({**files, "vendor/sale-2.1/models.py": PackedFile("e")})
    assert changed["sale"] != first["sale"]
    # Both are there as before, and Odoo finds the other one.
    moved = modules_of({**files, "addons/stock": PackedFile(link="../vendor/newer/stock")})
    assert (moved["stock"] != first["stock"], moved["sale"]) == (True, first["sale"])


@pytest.fixture
def shop(wheel_postgres: PostgresServer, tmp_path: Path) -> Iterator[Application]:
    with running_application(wheel_postgres, tmp_path, attachments=3) as shop:
        current = tmp_path / "srv" / "current"
        with shop.odoo_conf.open("a") as conf:
            # As people write it; Odoo's own command refuses the second one, which is empty.
            (tmp_path / "extra").mkdir()
            conf.write(f"addons_path =\n    {current}/addons/,\n    {tmp_path}/extra\n")
        with wheel_postgres.connect() as connection:
            connection.execute(f'ALTER ROLE "{shop.role}" CREATEDB'.encode())
        yield shop
        with wheel_postgres.connect() as connection:
            parked = connection.execute(
                "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (f"{shop.name}__",)
            ).fetchall()
        for (name,) in parked:
            wheel_postgres.drop_database(name)


def target_of(shop: Application, tmp_path: Path) -> Target:
    program = tmp_path / "odoo-bin"
    program.write_text(textwrap.dedent(ODOO))
    program.chmod(0o755)
    (tmp_path / "srv").mkdir(exist_ok=True)
    return Target(
        name="shop",
        environment="staging",
        database=shop.address,
        store=DirectoryStoreSettings(tmp_path / "store"),
        customer="",
        filestore=FilestoreSettings(PurePosixPath(shop.filestore), True, "the test"),
        odoo_conf=str(shop.odoo_conf),
        odoo_bin=str(program),
        deploy_folder=str(tmp_path / "srv"),
        pg_bindir=str(shop.server.bindir),
        deploy=DeploySettings(database="odoo"),
    )


def write_release(tmp_path: Path, version: str, *, stuck: bool = False, fails: bool = False) -> str:
    source = tmp_path / f"release-{version}"
    for module in ("sale", "stock", "base"):
        (source / "addons" / module).mkdir(parents=True)
        (source / "addons" / module / "__init__.py").touch()
        own = manifest(version, "stuck" if stuck else "") if module == "sale" else manifest("14.0.1.3")
        (source / "addons" / module / "__manifest__.py").write_text(own)
    if fails:
        (source / "addons" / "fails").write_text("")
    return str(source)


def deploy(target: Target, release: str) -> Deploy:
    procedure = Deploy(target, open_store(target.store, ""), Journal(None, Redactor()), DeployRequest(release))
    try:
        for _, step in STEPS:
            step(procedure)
        procedure.keep()
    finally:
        procedure.close()
    return procedure


def versions(shop: Application) -> dict[str, str]:
    with shop.connect() as connection:
        return {str(name): str(version) for name, version in connection.execute(VERSIONS.encode()).fetchall()}


def test_the_installed_modules_that_differ_are_updated_in_a_copy(shop: Application, tmp_path: Path) -> None:
    target = target_of(shop, tmp_path)
    # Nothing is live that the first one could be compared with: all that is installed is updated, but not stock.
    first = deploy(target, write_release(tmp_path, "14.0.1.1"))
    assert first.pending == ("base", "sale")
    second = deploy(target, write_release(tmp_path, "14.0.2.0"))
    assert second.pending == ("sale",)
    assert versions(shop) == {"base": "14.0.1.3", "sale": "14.0.2.0"}
    # Odoo has worked on the copy, by the code of the new release, and found the live one's files.
    touched = (shop.filestore / "checklist" / "touched").read_text()
    assert second.exchange.intent.side in touched
    assert f"--addons-path={second.releases.path(second.release)}/addons" in touched
    assert [one.name for one in shop.filestore.parent.iterdir()] == [shop.name]
    # The very same modules in another release: nothing is updated.
    third = deploy(target, str(tmp_path / "release-14.0.2.0"))
    assert third.pending == ()
    assert not third.exchange.has_swapped
    # But where the database is an older one meanwhile, as after a restore, that is seen by the version that it has.
    with shop.connect() as connection:
        connection.execute("UPDATE ir_module_module SET latest_version = '14.0.1.1' WHERE name = 'sale'")
        connection.commit()
    fourth = deploy(target, str(tmp_path / "release-14.0.2.0"))
    assert fourth.pending == ("sale",)
    assert versions(shop)["sale"] == "14.0.2.0"
    with pytest.raises(ProofError, match="Odoo has no way down") as caught:
        deploy(target, str(tmp_path / "release-14.0.1.1"))
    assert (caught.value.expected, caught.value.found) == ("sale 14.0.2.0 or newer", "sale 14.0.1.1")


def test_a_rehearsal_is_neutralized_and_what_is_live_is_not(shop: Application, tmp_path: Path) -> None:
    target = target_of(shop, tmp_path)
    target = replace(target, deploy=replace(target.deploy, rehearse=True))
    found = deploy(target, write_release(tmp_path, "14.0.1.1"))
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert [one["database"] for one in seen] == [found.exchange.intent.side] * 2
    assert [one["neutralized"] for one in seen] == [True, False]


def test_what_odoo_says_it_has_done_is_held_against_the_release(shop: Application, tmp_path: Path) -> None:
    target, before = target_of(shop, tmp_path), versions(shop)
    release = Path(write_release(tmp_path, "14.0.5.0"))
    (release / "addons" / "lies").touch()
    with pytest.raises(ProofError, match="has not updated all modules") as caught:
        deploy(target, str(release))
    assert "sale 14.0.5.0" in caught.value.expected
    assert versions(shop) == before
    # One that is new and empty is none of Odoo's: a deploy would make it, if it were not there.
    with shop.connect() as connection:
        connection.execute("DROP TABLE ir_module_module CASCADE")
        connection.commit()
    with pytest.raises(ProofError, match="Odoo has never been at work in") as empty:
        deploy(target, str(release))
    assert "dropdb" in empty.value.hint


@pytest.mark.parametrize("how", ["stuck", "fails"])
def test_an_update_that_fails_changes_nothing(shop: Application, tmp_path: Path, how: str) -> None:
    target, before = target_of(shop, tmp_path), versions(shop)
    release = write_release(tmp_path, "14.0.1.1", stuck=how == "stuck", fails=how == "fails")
    with pytest.raises(ProofError if how == "stuck" else CommandFailed) as caught:
        deploy(target, release)
    assert ("sale: to upgrade" if how == "stuck" else "a view is broken") in caught.value.found
    assert versions(shop) == before
    assert [one.name for one in shop.filestore.parent.iterdir()] == [shop.name]
    assert not (tmp_path / "srv" / "current").is_symlink()


def test_what_odoo_would_not_find_is_told_before_anything_is_stopped(shop: Application, tmp_path: Path) -> None:
    target, conf = target_of(shop, tmp_path), shop.odoo_conf.read_text()
    whole = write_release(tmp_path, "14.0.1.1")
    shop.odoo_conf.write_text(conf.replace("current/addons", "elsewhere"))
    with pytest.raises(ConfigurationError, match="does not look for modules in the release") as caught:
        deploy(target, whole)
    assert "base, sale in a folder of addons_path" in caught.value.expected
    # A link of one's own to where the releases are is as good.
    (tmp_path / "elsewhere").symlink_to(tmp_path / "srv" / "current" / "addons")
    shop.odoo_conf.write_text(conf.replace("srv/current/addons", "elsewhere"))
    assert deploy(target, whole).pending == ("base", "sale")
    # Stock is not installed: nobody misses it.
    lacking = Path(write_release(tmp_path, "14.0.1.2"))
    for module in ("sale", "stock"):
        shutil.rmtree(lacking / "addons" / module)
    with pytest.raises(ProofError, match="lacks modules that are installed") as missed:
        deploy(target, str(lacking))
    assert missed.value.found == "sale"
    assert versions(shop)["sale"] == "14.0.1.1"
    # It has moved to another folder of Odoo's.
    shutil.copytree(Path(whole) / "addons" / "sale", tmp_path / "extra" / "sale")
    assert deploy(target, str(lacking)).pending == ()


@pytest.mark.parametrize("place", ["odoo-bin", pytest.param("odoo/odoo-bin", marks=pytest.mark.slow)])
def test_a_release_with_odoo_itself_is_updated_by_it(shop: Application, tmp_path: Path, place: str) -> None:
    target = target_of(shop, tmp_path)
    release = Path(write_release(tmp_path, "14.0.1.1"))
    (release / "odoo").mkdir()
    # The folder called odoo is no program, and the one on the PATH not the release's.
    shutil.copy(tmp_path / "odoo-bin", release / place)
    found = deploy(replace(target, odoo_bin=None), str(release))
    assert found.pending == ("base", "sale")
    assert versions(shop)["sale"] == "14.0.1.1"


def test_a_rollback_without_a_backup_is_refused_and_says_which_one_to_bring_back(
    shop: Application, tmp_path: Path
) -> None:
    target = target_of(shop, tmp_path)
    first = deploy(target, write_release(tmp_path, "14.0.1.1"))
    second = deploy(target, write_release(tmp_path, "14.0.2.0"))
    third = deploy(target, write_release(tmp_path, "14.0.3.0"))
    before = seen(shop, target)
    # To the one before, and further down: each has the backup that was taken while it was live.
    for release, its_data in (("", third.safety), (first.release, second.safety)):
        with pytest.raises(ProofError, match="Odoo has no way down") as refused:
            roll_back(target, Going(release))
        assert refused.value.found == "others: sale"
        assert refused.value.kept == "nothing was changed"
        assert f"--to-release={release or second.release} --backup={its_data} " in refused.value.hint
        assert seen(shop, target) == before
    # What is to be typed works.
    back = roll_back(target, Going(first.release, second.safety))
    assert back.how == "backup"
    assert versions(shop) == {"base": "14.0.1.3", "sale": "14.0.1.1"}
    assert (tmp_path / "srv" / "current").readlink().name == first.release


def seen(shop: Application, target: Target) -> tuple[object, ...]:
    """Return all that a rollback would change: versions, databases with their comments, releases, and backups."""
    with shop.server.connect() as connection:
        query = "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database WHERE starts_with(datname, %s)"
        databases = connection.execute(f"{query} ORDER BY 1".encode(), (shop.name,)).fetchall()
    folder = Path(target.deploy_folder or "")
    files = sorted(str(one) for one in (*folder.glob("*"), *folder.glob("releases/*"), *folder.parent.glob("store/**")))
    return versions(shop), databases, files, (folder / "current").readlink()


def roll_back(target: Target, going: Going) -> ReleaseRollback:
    """Go through all the steps of the action."""
    procedure = ReleaseRollback(target, open_store(target.store, ""), Journal(None, Redactor()), going)
    try:
        for step in ROLLBACK_STEPS:
            step(procedure)
    finally:
        procedure.close()
    return procedure
