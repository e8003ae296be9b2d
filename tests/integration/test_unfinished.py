"""What is said where a server holds more, or something else, than one unfinished procedure: with commands that work."""

from __future__ import annotations

import secrets
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from opsproof.errors import HostError, OpsproofError, ProofError
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.outage.exchange import Exchange
from opsproof.procedures.recover.procedure import Recover
from opsproof.procedures.restore.workspace import Workspace, remove_abandoned
from opsproof.system.postgres.databases import create_side, database_exists, oid_of, write_intent
from opsproof.system.postgres.server import connect, describe_database
from opsproof.system.postgres.swap import SwapResult
from opsproof.system.store import open_store
from opsproof.target import Target
from tests.lab.captured import LOCAL
from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import databases_of
from tests.lab.targets import target_of


@dataclass(frozen=True)
class Held:
    """A live database of a target, and what runs have left beside it."""

    server: PostgresServer
    target: Target

    @property
    def live(self) -> str:
        return self.target.database.name

    def intent(self, side: str) -> Intent:
        return Intent(
            "restore", secrets.token_hex(4), "prod", "erp", self.live, side, "", "b", "", "building", (), "2026-01-31",
            "me",
        )  # fmt: skip

    def leave(self, digit: int) -> str:
        """Leave a side database of a run of its own; return its name."""
        side = f"{self.live}__side_{digit:014}"
        with connect(self.target.database) as connection:
            shape = describe_database(connection)
        with self.server.connect() as connection:
            create_side(connection, side, shape)
            write_intent(connection, side, self.intent(side))
        return side

    def recover(self) -> Recover:
        return Recover(self.target, open_store(self.target.store, ""), Journal())


@pytest.fixture
def held(wheel_postgres: PostgresServer, tmp_path: Path) -> Iterator[Held]:
    name = f'odd "live" $(x) {secrets.token_hex(3)}'
    address = wheel_postgres.create_database(name)
    yield Held(wheel_postgres, target_of(tmp_path, database=address))
    for database in databases_of(wheel_postgres, name):
        drop(wheel_postgres, database)


def drop(server: PostgresServer, database: str) -> None:
    name = database.replace('"', '""')
    with server.connect() as connection:
        connection.execute(f'ALTER DATABASE "{name}" IS_TEMPLATE false'.encode())
    server.drop_database(database)


def require_whole(error: OpsproofError) -> None:
    assert error.expected
    assert error.found
    assert error.kept
    assert error.hint


def test_of_two_unfinished_procedures_the_hint_drops_what_one_was_building(held: Held) -> None:
    first, second = held.leave(1), held.leave(2)
    with pytest.raises(ProofError, match="More than one procedure of erp is unfinished") as raised:
        held.recover().find_unfinished()
    error = raised.value
    require_whole(error)
    assert f"{first!r}: restore, building" in error.found
    *drops, recover = error.hint.splitlines()
    assert recover.startswith("pytest actions/test_recover.py --env=prod --target=erp")
    command = shlex.split(drops[0].partition("   ")[0])
    assert command[0] == "psql"
    program = [str(held.server.bindir / "psql"), "-X", "-v", "ON_ERROR_STOP=1", "-d", held.server.url("postgres")]
    subprocess.run([*program, *command[3:]], check=True, capture_output=True, timeout=30)
    with held.server.connect() as connection:
        assert not database_exists(connection, first)
    assert held.recover().find_unfinished() == [f"{second!r}: restore of b, building, since 2026-01-31, by me"]


def test_the_restore_that_is_taken_back_is_the_servers_last_whatever_clocks_say(held: Held) -> None:
    """Two machines have restored, of which the first one's clock was an hour ahead."""
    last = f"{held.live}__before_20260131030500"
    for parked, since, xid in ((f"{held.live}__before_20260131040000", "04:00", "900"), (last, "03:05", "1000")):
        held.server.create_database(parked)
        with held.server.connect() as connection:
            kept = replace(held.intent(""), parked=parked, since=f"2026-01-31T{since}:00+00:00", swap_xid=xid)
            write_intent(connection, parked, replace(kept, stage="kept"))
    recover = Recover(held.target, open_store(held.target.store, ""), Journal(), undo=True)
    recover.find_unfinished()
    assert recover.unfinished is not None
    assert recover.unfinished[0] == last


def test_what_was_begun_while_it_recovered_is_told_with_what_to_type(held: Held) -> None:
    side = held.leave(1)
    with pytest.raises(ProofError, match="Something of erp is still unfinished") as raised:
        held.recover().check_application()
    require_whole(raised.value)
    assert repr(side) in raised.value.found
    assert raised.value.hint == "pytest actions/test_recover.py --env=prod --target=erp"


def test_another_database_under_the_live_name_is_told_with_where_the_old_data_is(held: Held) -> None:
    with held.server.connect() as connection:
        oid = oid_of(connection, held.live)
    assert oid is not None
    intent = replace(held.intent("side"), parked=held.live)
    exchange = Exchange(held.target, LOCAL, intent, Journal())
    exchange.result = SwapResult(seconds=0.1, ended=0, xid="1", oid=oid)
    assert exchange.check_application() == 0
    exchange.result = replace(exchange.result, oid=oid + 1)
    with pytest.raises(ProofError, match="is not the database that was built") as raised:
        exchange.check_application()
    require_whole(raised.value)
    assert raised.value.found == f"the one with oid {oid}"
    assert raised.value.kept.endswith("holds the old data")
    assert "pytest actions/test_recover.py --env=prod --target=erp" in raised.value.hint


def test_without_a_temporary_folder_that_can_be_written_there_is_no_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert remove_abandoned() == []
    with pytest.raises(HostError, match="There is no folder to unpack a backup in: No such file") as raised:
        Workspace()
    require_whole(raised.value)
    assert "TMPDIR=" in raised.value.hint
