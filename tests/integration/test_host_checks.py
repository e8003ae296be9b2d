"""What a look at the machines finds: each test breaks exactly what is looked for, and reads the message."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import pytest

from opsproof.errors import HostError, ProofError
from opsproof.inspection.clock import Clock, check_clock, read_host_clock, read_server_clock, read_store_clock
from opsproof.inspection.hostroom import (
    Need,
    check_room,
    find_disk,
    is_server_in_sight,
    needs_of_backup,
    needs_of_restore,
)
from opsproof.system.files.filestore import FilestoreFacts
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.transport import close_connections
from opsproof.system.postgres.server import connect, describe_database
from opsproof.target import (
    Connection,
    DatabaseAddress,
    DirectoryStoreSettings,
    FilestoreSettings,
    S3StoreSettings,
    Target,
)
from tests.lab.postgres_server import PostgresServer
from tests.lab.ssh_server import SshServer, ssh_server

__all__ = ["ssh_server"]

HERE = Host(Connection())
ALLOWED = timedelta(seconds=5)
ZETTABYTE = 10**21


def target_of(address: DatabaseAddress, folder: Path, **changes: object) -> Target:
    return replace(Target("erp", "prod", address, DirectoryStoreSettings(folder / "store"), "acme"), **changes)  # type: ignore[arg-type]


def refusal(needs: list[Need], purpose: str = "the next backup") -> ProofError:
    with pytest.raises(ProofError) as caught:
        check_room(needs, purpose)
    assert caught.value.hint
    assert caught.value.kept
    return caught.value


@pytest.fixture
def address(wheel_postgres: PostgresServer) -> DatabaseAddress:
    return wheel_postgres.address("postgres")


def facts_of_files(target: Target, files: int, size: int) -> FilestoreFacts:
    assert target.filestore
    return FilestoreFacts(str(target.filestore.path), "odoo", "odoo", "755", files, size)


def test_there_is_room_for_a_small_backup_and_its_restore(address: DatabaseAddress, tmp_path: Path) -> None:
    target = target_of(address, tmp_path)
    with connect(address) as connection:
        live = describe_database(connection)
        needs = list(needs_of_restore(connection, target, live, None))
    assert check_room(needs, "the next restore") == ()
    assert [need.purpose for need in needs] == ["the safety backup", "the unpacked dump", "the side database"]
    assert needs[-1].bytes == live.bytes
    assert needs[-1].files > 100
    assert check_room(needs_of_backup(target, live, None), "the next backup") == ()


def test_a_backup_without_room(address: DatabaseAddress, tmp_path: Path) -> None:
    target = target_of(address, tmp_path)
    with connect(address) as connection:
        live = replace(describe_database(connection), bytes=ZETTABYTE)
    error = refusal(list(needs_of_backup(target, live, None)))
    assert "of this machine has not enough room for the next backup" in error.summary
    assert f"{ZETTABYTE // 2:,} bytes and" in error.expected
    assert "the temporary compressed dump in " in error.expected
    assert f"{tmp_path / 'store'}" in error.expected
    assert error.hint.startswith("on it: df -h ")


def test_a_restore_without_room_for_the_side_database(address: DatabaseAddress, tmp_path: Path) -> None:
    with connect(address) as connection:
        live = replace(describe_database(connection), bytes=ZETTABYTE)
        error = refusal(
            list(needs_of_restore(connection, target_of(address, tmp_path), live, None)), "the next restore"
        )
    assert f"{ZETTABYTE:,} bytes and" in error.expected
    assert "the side database in " in error.expected


@pytest.mark.parametrize("addressed", [True, False])
def test_files_that_are_copied_need_room_and_inodes(address: DatabaseAddress, tmp_path: Path, addressed: bool) -> None:
    settings = FilestoreSettings(PurePosixPath(tmp_path / "files"), addressed, "hosts.yml")
    target = target_of(address, tmp_path, filestore=settings, store=S3StoreSettings("b", "r"))
    with connect(address) as connection:
        live = describe_database(connection)
    for size, count, lacking in ((ZETTABYTE, 1, "room"), (1, 10**15, "inodes")):
        needs = [
            one for one in needs_of_backup(target, live, facts_of_files(target, count, size)) if "frozen" in one.purpose
        ]
        if addressed:
            assert check_room(needs, "the next backup") == ()
            continue
        error = refusal(needs)
        assert f"not enough {lacking} for the next backup" in error.summary
        assert f"the frozen filestore in {tmp_path}" in error.expected
    with connect(address) as connection:
        restore = list(needs_of_restore(connection, target, live, facts_of_files(target, 10, ZETTABYTE)))
    assert "for the download in" in refusal(restore, "the next restore").expected


def test_too_few_inodes_are_told_from_too_few_bytes(tmp_path: Path) -> None:
    disk = find_disk(HERE, str(tmp_path))
    assert disk is not None
    assert disk.files is not None
    error = refusal([Need("the side database", HERE, str(tmp_path), 1, disk.files * 2 + 10**6)])
    assert "has not enough inodes for the next backup" in error.summary
    assert f"{disk.files * 2 + 10**6:,} inodes free" in error.expected
    assert "inodes free, and" in error.found
    assert "df -i" in error.hint


def test_what_falls_on_one_disk_is_added_up(tmp_path: Path) -> None:
    disk = find_disk(HERE, str(tmp_path))
    assert disk is not None
    half = int(disk.bytes * 0.6)
    needs = [Need(name, HERE, str(tmp_path / name), half, 1) for name in ("one", "other")]
    assert check_room(needs[:1], "the next backup") == ()
    assert f"{2 * half:,} bytes free" in refusal(needs).expected


def test_a_disk_that_nobody_can_look_at_is_named(tmp_path: Path) -> None:
    lost = Need("the side database", HERE, str(tmp_path / "none"), ZETTABYTE, 1, must_exist=True)
    (sentence,) = check_room([lost], "the next restore")
    assert sentence == f"nobody can tell how much is free in {tmp_path / 'none'}, for the side database"


def test_a_server_elsewhere_is_out_of_sight(address: DatabaseAddress, tmp_path: Path) -> None:
    far = target_of(replace(address, host="db.example.com"), tmp_path)
    assert not is_server_in_sight(far)
    with connect(address) as connection:
        live = describe_database(connection)
        assert "the side database" not in [one.purpose for one in needs_of_restore(connection, far, live, None)]
    assert is_server_in_sight(target_of(address, tmp_path))


def test_the_disks_of_another_machine(ssh_server: SshServer, tmp_path: Path) -> None:
    host = Host(ssh_server.connection)
    try:
        error = refusal([Need("the frozen filestore", host, str(tmp_path / "not there yet"), ZETTABYTE, 1)])
    finally:
        close_connections()
    assert " of 127.0.0.1 has not enough room" in error.summary


def test_clocks_that_agree(address: DatabaseAddress, ssh_server: SshServer) -> None:
    try:
        far = read_host_clock(Host(ssh_server.connection))
    finally:
        close_connections()
    with connect(address) as connection:
        server = read_server_clock(connection)
    for clock in (far, server, read_host_clock(HERE)):
        assert abs(check_clock(clock, ALLOWED)) < 5


@pytest.mark.parametrize(("seconds", "word"), [(3600, "ahead"), (-3600, "behind")])
def test_a_clock_of_the_host_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, word: str
) -> None:
    program = tmp_path / "date"
    program.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin; exec date -d "{seconds} seconds" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ProofError, match=rf"The clock of the host is 3\d\d\d\.\d s {word}") as caught:
        check_clock(read_host_clock(HERE), ALLOWED)
    assert "thresholds.clock_skew" in caught.value.expected
    assert "timedatectl" in caught.value.hint


def test_a_host_that_says_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "date"
    program.write_text("#!/bin/sh\necho noon\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(HostError, match="says no time") as caught:
        read_host_clock(HERE)
    assert caught.value.found == "noon"


def test_a_clock_of_the_server_that_is_wrong(address: DatabaseAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    true = time.time
    # Which of the two is wrong nobody can tell.
    monkeypatch.setattr("time.time", lambda: true() + 60)
    with connect(address) as connection:
        clock = read_server_clock(connection)
    with pytest.raises(ProofError, match=r"The clock of the database server is 60\.\d s behind"):
        check_clock(clock, ALLOWED)


def test_what_the_way_leaves_in_doubt_is_not_held_against_a_clock() -> None:
    assert check_clock(Clock("the host", 7.0, 2.5), ALLOWED) == 7.0
    with pytest.raises(ProofError, match=r"is 7\.0 s ahead"):
        check_clock(Clock("the host", 7.0, 1.5), ALLOWED)


@contextmanager
def answering(status: int, date: str | None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(status)
            self.send_header("Location", "http://127.0.0.1:1/")
            if date is not None:
                self.send_header("Date", date)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("status", [200, 307, 403])
def test_the_clock_of_a_store(status: int) -> None:
    with answering(status, formatdate(usegmt=True)) as url:
        clock = read_store_clock(S3StoreSettings("b", "r", endpoint_url=url))
    assert clock is not None
    assert abs(check_clock(clock, ALLOWED)) < 5
    with answering(status, "Fri, 01 Jan 2021 00:00:00 GMT") as url:
        wrong = read_store_clock(S3StoreSettings("b", "r", endpoint_url=url))
    assert wrong is not None
    with pytest.raises(ProofError, match=r"The clock of the store is .* behind"):
        check_clock(wrong, ALLOWED)


@pytest.mark.parametrize("date", [None, "noon"])
def test_a_store_that_tells_no_time(date: str | None, tmp_path: Path) -> None:
    with answering(200, date) as url:
        assert read_store_clock(S3StoreSettings("b", "r", endpoint_url=url)) is None
    assert read_store_clock(DirectoryStoreSettings(tmp_path)) is None
    assert read_store_clock(S3StoreSettings("b", "r", endpoint_url="http://127.0.0.1:1")) is None
