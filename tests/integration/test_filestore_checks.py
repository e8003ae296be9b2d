"""The check of a filestore is shown failing: a file missing, cut short, of other content; here and over a real sshd."""

from __future__ import annotations

import hashlib
import os
import secrets
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from opsproof.errors import FilestoreError, PermissionDenied, ProofError
from opsproof.inspection.attachments import Attachments, check_attachments
from opsproof.inspection.databases.looking import Unanswered, look_at
from opsproof.system.files.filestore import Filestore
from opsproof.system.hosts.host import Completed, Host
from opsproof.system.hosts.pipe import Pipe
from opsproof.system.hosts.transport import close_connections
from opsproof.system.postgres.server import Connection
from opsproof.target import Connection as Way
from tests.lab.captured import LOCAL
from tests.lab.filestores import add, filestore_of, live
from tests.lab.postgres_server import PostgresServer, Session
from tests.lab.ssh_server import SshServer, ssh_server

__all__ = ["live", "ssh_server"]

TABLE = "CREATE TABLE ir_attachment (id serial PRIMARY KEY, store_fname text, file_size bigint)"
NAMING = "INSERT INTO ir_attachment (store_fname, file_size) VALUES (%s, %s)"
NOBODY = 65534


class Shop:
    """A database and its files: `root` is the superuser's connection, `db` a check's."""

    def __init__(self, root: Session, db: Connection, live: Path) -> None:
        self.root, self.db, self.live = root, db, live

    def attach(self, data: bytes) -> str:
        name = add(self.live, data)
        self.root.execute(NAMING, (name, len(data)))
        return name

    def check(self, host: Host = LOCAL, *, deep: bool = False) -> Attachments:
        return check_attachments(self.db, filestore_of(self.live, host=host), deep=deep)

    def complaint(self, host: Host = LOCAL, *, deep: bool = False) -> str:
        with pytest.raises(ProofError) as caught:
            self.check(host, deep=deep)
        assert "check data_dir in /etc/odoo.conf" in caught.value.hint
        return str(caught.value)


@pytest.fixture
def shop(wheel_postgres: PostgresServer, live: Path) -> Iterator[Shop]:
    address = wheel_postgres.create_database(f"files_{secrets.token_hex(4)}", TABLE)
    try:
        with wheel_postgres.connect(address.name) as root, look_at(address) as db:
            yield Shop(root, db, live)
    finally:
        wheel_postgres.drop_database(address.name)


@pytest.fixture(params=["here", "by ssh"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    if request.param == "here":
        yield LOCAL
        return
    server: SshServer = request.getfixturevalue("ssh_server")
    yield Host(server.connection)
    close_connections()


def test_files_that_are_there_pass_and_others_are_counted(shop: Shop, host: Host) -> None:
    shop.attach(b"one")
    for _ in range(2):
        shop.attach(b"two, named by two rows")
    for row in ((None, None), ("", 0)):
        shop.root.execute(NAMING, row)
    add(shop.live, b"an orphan")
    (shop.live / "checklist").mkdir()
    (shop.live / "checklist" / "marker").touch()
    # A digest that begins with the byte of a slash, and names that are no attachment's.
    shop.attach(next(data for n in range(9999) if hashlib.sha1(data := b"%d" % n).hexdigest().startswith("2f")))
    (shop.live / "odd\nname").write_bytes(b"12345")
    (shop.live / os.fsdecode(b"caf\xe9")).write_bytes(b"an orphan, too")
    shop.root.execute(NAMING, ("odd\nname", None))
    found = shop.check(host)
    assert (found.named, found.files, found.orphans, found.read, found.faults) == (4, 6, 2, 0, ())
    assert found.bytes == sum(path.stat().st_size for path in shop.live.rglob("*") if path.is_file())
    assert shop.check(host, deep=True).read == 3


def test_missing_files_and_wrong_sizes_are_told(shop: Shop, host: Host) -> None:
    lost, cut, disputed = shop.attach(b"lost"), shop.attach(b"cut short"), shop.attach(b"disputed")
    (shop.live / lost).unlink()
    (shop.live / cut).write_bytes(b"cut")
    shop.root.execute(NAMING, (disputed, 99))
    told = shop.complaint(host)
    assert "3 of 3 attachments are not in the filestore" in told
    assert f"{lost}: missing" in told
    assert f"{cut}: 3 bytes, its row says 9" in told
    assert f"{disputed}: one row says 8 bytes, another 99" in told
    assert "2 files are there, 0 of them named by no row" in told


def test_other_content_of_the_same_size_is_told_when_it_is_read(shop: Shop, host: Host) -> None:
    rotten = shop.attach(b"as it was")
    (shop.live / rotten).write_bytes(b"as it is.")
    assert shop.check(host).faults == ()
    assert f"{rotten}: its content is not what its name says" in shop.complaint(host, deep=True)


def test_a_link_is_no_file(shop: Shop, host: Host) -> None:
    name = shop.attach(b"moved")
    (shop.live / name).rename(shop.live.parent / "moved")
    (shop.live / name).symlink_to(shop.live.parent / "moved")
    assert f"{name}: missing" in shop.complaint(host)


def test_a_name_that_leads_out_of_the_folder_is_no_file_of_it(shop: Shop, host: Host) -> None:
    (shop.live.parent / "outside").write_bytes(b"x")
    for name in ("../outside", str(shop.live.parent / "outside")):
        shop.root.execute(NAMING, (name, 1))
    told = shop.complaint(host)
    assert "../outside: missing" in told
    assert "2 of 2 attachments" in told


def test_what_was_lost_long_ago_is_accepted(shop: Shop) -> None:
    lost = [shop.attach(data) for data in (b"one", b"two", b"three")][:2]
    for name in lost:
        (shop.live / name).unlink()
    filestore = filestore_of(shop.live)
    accepting = Filestore(LOCAL, replace(filestore.settings, accept_missing=2))
    assert check_attachments(shop.db, accepting).faults == tuple(sorted(f"{name}: missing" for name in lost))
    with pytest.raises(ProofError, match="2 of 3"):
        check_attachments(shop.db, Filestore(LOCAL, replace(filestore.settings, accept_missing=1)))


class Interfering(Host):
    """A host on which something happens right before the files are listed."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__(Way())
        self._act = act

    def pipe(self, *argv: str, **options: Any) -> Pipe:
        self._act()
        return super().pipe(*argv, **options)


def test_what_a_clean_up_removes_meanwhile_is_no_fault(shop: Shop) -> None:
    shop.attach(b"stays")
    goes = shop.attach(b"goes")

    def clean_up() -> None:
        shop.root.execute("DELETE FROM ir_attachment WHERE store_fname = %s", (goes,))
        (shop.live / goes).unlink()
        shop.attach(b"comes")

    found = shop.check(Interfering(clean_up))
    assert (found.named, found.orphans, found.faults) == (2, 1, ())


class Cut(Host):
    """A host whose listing ends early, as one does whose connection is lost."""

    def pipe(self, *argv: str, **options: Any) -> Pipe:
        return super().pipe("sh", "-c", "printf '3 a\\0'; exit 255", **options)


def test_a_listing_that_ends_early_is_no_whole_one(shop: Shop) -> None:
    with pytest.raises(FilestoreError, match="could not be read"):
        shop.check(Cut(Way()))


class OtherAccount(Host):
    """The same machine as an account sees it that may not enter the folder."""

    PREFIX = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")

    def run(self, *argv: str, **options: Any) -> Completed:
        return super().run(*self.PREFIX, *argv, **options)

    def pipe(self, *argv: str, **options: Any) -> Pipe:
        return super().pipe(*self.PREFIX, *argv, **options)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_folder_that_may_not_be_read_is_no_empty_one(shop: Shop) -> None:
    shop.attach(b"hidden")
    shop.live.chmod(0o700)
    with pytest.raises(FilestoreError):
        shop.check(OtherAccount(Way()))


def test_a_folder_that_is_not_there_is_no_empty_one(shop: Shop) -> None:
    filestore = filestore_of(shop.live / "nowhere")
    with pytest.raises(FilestoreError, match="Filestore not found: check data_dir"):
        check_attachments(shop.db, filestore)


def test_files_that_no_table_names_are_known_by_their_own_names_alone(shop: Shop, host: Host) -> None:
    shop.root.execute("DROP TABLE ir_attachment")
    name = add(shop.live, b"one")
    with pytest.raises(Unanswered, match="Nothing says which files there should be") as caught:
        shop.check(host)
    assert "1 files, 3 bytes" in caught.value.found
    assert shop.check(host, deep=True).read == 1
    (shop.live / name).write_bytes(b"two")
    with pytest.raises(ProofError, match="1 files are not what their names say") as wrong:
        shop.check(host, deep=True)
    assert name in wrong.value.found


def test_rows_that_may_not_be_read_are_a_refusal(shop: Shop, wheel_postgres: PostgresServer) -> None:
    shop.root.execute("CREATE ROLE blind LOGIN PASSWORD 'nothing'")
    try:
        with look_at(wheel_postgres.address(shop.root.info.dbname, "blind", "nothing")) as db:
            with pytest.raises(PermissionDenied, match="Role 'blind' may not look"):
                check_attachments(db, filestore_of(shop.live))
            # Nor are rows that a policy hides taken for all of them.
            shop.root.execute("GRANT SELECT ON ir_attachment TO blind")
            shop.root.execute("ALTER TABLE ir_attachment ENABLE ROW LEVEL SECURITY")
            with pytest.raises(PermissionDenied, match="Role 'blind' may not look"):
                check_attachments(db, filestore_of(shop.live))
    finally:
        shop.root.execute("DROP OWNED BY blind")
        shop.root.execute("DROP ROLE blind")


class Listed(Host):
    """A host with more files than a test can make: their listing is in a file."""

    def __init__(self, listing: Path) -> None:
        super().__init__(Way())
        self._listing = listing

    def pipe(self, *argv: str, **options: Any) -> Pipe:
        return super().pipe("cat", str(self._listing), **options)


@pytest.mark.slow
def test_many_files_take_little_memory(shop: Shop, tmp_path: Path) -> None:
    count = 150_000
    digest = "encode(sha224(n::text::bytea), 'hex')"
    shop.root.execute(
        "INSERT INTO ir_attachment (store_fname, file_size)"
        f" SELECT left({digest}, 2) || '/' || left({digest}, 40), n FROM generate_series(1, {count}) n".encode()
    )
    listing = tmp_path / "listing"
    with listing.open("w") as file:
        for n in range(1, count + 1):
            name = hashlib.sha224(str(n).encode()).hexdigest()[:40]
            file.write(f"{n} {name[:2]}/{name}\0")
    filestore = Filestore(Listed(listing), replace(filestore_of(shop.live).settings, path=PurePosixPath(shop.live)))
    tracemalloc.start()
    try:
        found = check_attachments(shop.db, filestore)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.named, found.files, found.orphans) == (count, count, 0)
    assert peak < 160 * count, f"{peak / count:.0f} bytes for each file"
