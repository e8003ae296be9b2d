"""Scratch databases and folders: whose they are, who may remove them, and that nothing else can be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePosixPath

import pytest
from psycopg import sql

from opsproof.errors import DatabaseError, FilestoreError
from opsproof.procedures.scratchcopy import find_abandoned_folders, remove_scratch_folder
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.databases import scratch_name
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.scratch import claimed, drop_abandoned, drop_scratch, is_scratch_of
from opsproof.target import Connection, FilestoreSettings
from tests.lab.application import Application, running_application
from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import databases_of, drop_others
from tests.lab.targets import target_of

MOMENT = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
STAMP = "20260301020000"


@pytest.fixture(scope="module")
def made(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    with running_application(postgres, tmp_path_factory.mktemp("shop"), attachments=1) as application:
        with postgres.connect() as connection:
            connection.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(application.role)))
        yield application


@pytest.fixture
def shop(made: Application) -> Iterator[Application]:
    yield made
    drop_others(made)


def create(shop: Application, name: str, *, barred: bool = False) -> str:
    """Create a database of the application's role, as one that was left behind is."""
    words = sql.Identifier(name), sql.Identifier(shop.role)
    how = "ALLOW_CONNECTIONS false" if barred else "IS_TEMPLATE true"
    with shop.server.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {} {}").format(*words, sql.SQL(how)))
    return name


@pytest.mark.parametrize(
    ("database", "name", "wanted"),
    [
        ("app", f"app__scratch_{STAMP}", True),
        ("app", f"app__side_{STAMP}", False),
        ("app", f"app2__scratch_{STAMP}", False),
        ("app", f"app__scratch_{STAMP}__before_{STAMP}", False),
        ("app", f"app__scratch_{STAMP}__scratch_{STAMP}", False),
        ("app", "app", False),
        ("a" * 63, scratch_name("a" * 63, MOMENT), True),
        ("a" * 63, scratch_name("a" * 62 + "b", MOMENT), False),
    ],
)
def test_whose_a_scratch_name_is(database: str, name: str, wanted: bool) -> None:
    assert is_scratch_of(name, database) is wanted


@pytest.mark.parametrize("kind", ["side", "before"])
def test_nothing_else_is_dropped(shop: Application, kind: str) -> None:
    names = [shop.name, create(shop, f"{shop.name}__{kind}_{STAMP}", barred=kind == "before")]
    with maintenance(shop.address) as connection:
        for name in names:
            with pytest.raises(DatabaseError, match="is no scratch database"):
                drop_scratch(connection, name)
    assert drop_abandoned(shop.address) == ()
    assert set(databases_of(shop.server, shop.name)) == set(names)


def test_what_was_left_is_dropped_though_its_own_programs_are_in_it(shop: Application) -> None:
    """The first has a session of a pg_restore that nobody ended, the second a drop of it that was cut short."""
    left = [create(shop, f"{shop.name}__scratch_2026030102000{number}", barred=number == 1) for number in range(2)]
    with shop.server.connect(left[0], shop.role, shop.password):
        assert drop_abandoned(shop.address) == tuple(left)
    assert set(databases_of(shop.server, shop.name)) == {shop.name}


def test_what_somebody_claims_is_left_alone(shop: Application) -> None:
    """From before it is made on: between that and its first session there is a moment."""
    name = f"{shop.name}__scratch_{STAMP}"
    with claimed(shop.address, name):
        create(shop, name)
        assert drop_abandoned(shop.address) == ()
        with pytest.raises(DatabaseError, match="Another run of opsproof is at work"), claimed(shop.address, name):
            raise AssertionError("two have it")
    assert drop_abandoned(shop.address) == (name,)


def test_only_the_folder_of_a_scratch_database_that_is_gone_is_found(shop: Application) -> None:
    target = target_of(
        shop.data_dir,
        database=shop.address,
        filestore=FilestoreSettings(PurePosixPath(shop.filestore), content_addressed=True, origin="a test"),
    )
    names = [f"{shop.name}__scratch_{STAMP}", f"{shop.name}__scratch_20260301020001", f"{shop.name}__side_{STAMP}"]
    create(shop, names[1])
    for name in (*names, f"x{names[0]}"):
        (shop.filestore.parent / name).mkdir()
    assert find_abandoned_folders(Host(target.connection), target) == (names[0],)


@pytest.mark.parametrize("name", ["", ".", "..", f"../x__scratch_{STAMP}", "shop", f"shop__side_{STAMP}"])
def test_no_other_folder_is_removed(shop: Application, name: str) -> None:
    settings = FilestoreSettings(PurePosixPath(shop.filestore), content_addressed=True, origin="a test")
    with pytest.raises(FilestoreError, match="is no scratch folder"):
        remove_scratch_folder(Host(Connection()), settings, name)
    own = FilestoreSettings(settings.path.with_name(f"x__scratch_{STAMP}"), content_addressed=True, origin="a test")
    with pytest.raises(FilestoreError, match="is no scratch folder"):
        remove_scratch_folder(Host(Connection()), own, own.path.name)
    assert shop.filestore.is_dir()
