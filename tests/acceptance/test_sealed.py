"""Encrypted and signed backups, by the real actions: what is stored, who can bring it back, and what is refused."""

from __future__ import annotations

import io
import secrets
import signal
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opsproof.archive.manifest import Sidecar, read_sidecar
from opsproof.chain import find_fault_of_signature
from tests.lab.action_run import REPOSITORY, ActionRun, Project, make_project
from tests.lab.bucket import Bucket
from tests.lab.fault_proxy import Fault, running_proxy
from tests.lab.moto_server import S3Server
from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import Restorable, drop_others, restorable
from tests.lab.sealing import AgeKey, SigningKey, new_age_key, new_signing_key

SECRET_FILE = secrets.token_bytes(3000)
ROW = "changed since"


@dataclass(frozen=True)
class Sealed:
    """A shop whose backup in a bucket is encrypted to two recipients, and signed."""

    shop: Restorable
    keys: tuple[AgeKey, AgeKey]
    signing: SigningKey

    @property
    def bucket(self) -> Bucket:
        assert self.shop.bucket is not None
        return self.shop.bucket

    def read(self, ending: str) -> tuple[str, bytes]:
        (key,) = (key for key in self.bucket.keys() if key.endswith(self.shop.backup.id + ending))  # noqa: SIM118
        return key, self.bucket.client.get_object(Bucket=self.bucket.name, Key=key)["Body"].read()

    def restore(self, identity: str = "", *arguments: str, safety: bool = False) -> ActionRun:
        environ = {"OPSPROOF_AGE_IDENTITY": identity} if identity else {}
        options = [] if safety else ["--no-safety-backup"]
        return self.shop.restore(*options, *arguments, environ=environ)

    def require_silence(self, run: ActionRun) -> None:
        """Check that no private key is in anything that a run has written."""
        written = run.output + run.xml + run.log + repr(run.events)
        files = [path for path in self.shop.project.folder.rglob("*") if path.is_file()]
        written += "".join(path.read_bytes().decode(errors="replace") for path in files)
        assert len(files) > 3
        private = [self.keys[0].secret, self.keys[1].secret, self.signing.secret_line]
        assert [text for text in private if text in written] == []

    def require_untouched(self, run: ActionRun, step: str, *words: str) -> None:
        assert run.status == 1, run.output
        case = run.failed_step()
        assert case.step == step, run.output
        for word in (*words, "expected:", "found:", "kept:", "hint:"):
            assert word in case.message, case.message
        assert set(self.shop.databases()) == {self.shop.name}
        assert self.shop.query("SELECT name FROM res_partner WHERE id = 7") == [(ROW,)]
        assert self.shop.project.litter() == []
        self.require_silence(run)


@pytest.fixture(scope="module")
def made(
    wheel_postgres: PostgresServer, moto_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sealed]:
    folder = tmp_path_factory.mktemp("keys")
    keys, signing = (new_age_key(), new_age_key()), new_signing_key(folder)
    sealing: dict[str, Any] = {
        "encryption": {"recipients": [one.recipient for one in keys]},
        "signing": {"key_file": str(signing.private), "verify_key_file": str(signing.public)},
    }
    with restorable(wheel_postgres, s3=moto_server, **sealing) as shop:
        yield Sealed(shop, keys, signing)


@pytest.fixture
def sealed(made: Sealed) -> Iterator[Sealed]:
    made.shop.execute(f"UPDATE res_partner SET name = '{ROW}' WHERE id = 7")
    stored = {key: made.bucket.client.get_object(Bucket=made.bucket.name, Key=key)["Body"].read() for key in keys(made)}
    yield made
    drop_others(made.shop.application)
    made.shop.set()
    for key in set(keys(made)) - set(stored):
        made.bucket.client.delete_object(Bucket=made.bucket.name, Key=key)
    for key, data in stored.items():
        made.bucket.client.put_object(Bucket=made.bucket.name, Key=key, Body=data)


def keys(sealed: Sealed) -> list[str]:
    return sealed.bucket.keys()


def put(sealed: Sealed, key: str, data: bytes) -> None:
    sealed.bucket.client.put_object(Bucket=sealed.bucket.name, Key=key, Body=data)


def test_nothing_of_a_row_or_a_file_is_in_the_store(sealed: Sealed) -> None:
    backup = sealed.shop.backup
    assert sorted(key.rpartition("/")[2] for key in keys(sealed)) == sorted(
        [f"{backup.id}.zip.age", f"{backup.id}.manifest.json", f"{backup.id}.manifest.sig"]
    )
    _, bundle = sealed.read(".zip.age")
    members = zipfile.ZipFile(io.BytesIO(sealed.keys[0].decrypt(bundle)))
    (name,) = (one for one in members.namelist() if one.endswith(".sql") and one.startswith(backup.id))
    (file, *_) = (one for one in members.namelist() if one.startswith("filestore/"))
    row, content = b"user7@example.org", members.read(file)
    assert row in members.read(name), "what is looked for is in the backup"
    assert content
    assert file.encode() in sealed.keys[0].decrypt(bundle)
    _, sidecar = sealed.read(".manifest.json")
    for data in (bundle, sidecar, sealed.read(".manifest.sig")[1]):
        assert not [one for one in (row, content, b"RESTORE.txt", file.encode(), b"PK\x03\x04") if one in data]
    assert (backup.sealed, set(backup.recipients)) == ("age", {one.recipient for one in sealed.keys})
    assert backup.opened_bytes == len(sealed.keys[1].decrypt(bundle)) < backup.bytes == len(bundle)
    assert f"age -d -i key.txt {backup.id}.zip.age > {backup.id}.zip" == backup.open_with
    assert backup.open_with in members.read("RESTORE.txt").decode()


def test_the_copy_of_a_journal_is_encrypted_and_signed_too(sealed: Sealed) -> None:
    """What a server says of a row that it refuses quotes that row."""
    found = sealed.bucket.journals()
    copies = {name: data for name, data in found.items() if not name.endswith(".sig")}
    assert copies
    public = sealed.signing.public.read_bytes()
    for name, data in copies.items():
        assert name.endswith(".jsonl.age")
        assert b"step" not in data
        opened = sealed.keys[1].decrypt(data)
        assert b'"step"' in opened
        signature = found[name.removesuffix(".age") + ".sig"]
        assert find_fault_of_signature(opened, signature, public) == ""
        assert find_fault_of_signature(opened[:-1], signature, public) != ""


@pytest.mark.parametrize("which", [0, 1])
def test_each_recipient_brings_it_back(sealed: Sealed, which: int) -> None:
    if which:
        path = sealed.shop.project.folder.parent / "identity.txt"
        path.write_text(f"# created: today\n{sealed.keys[1].secret}\n")
        encryption = {"recipients": [one.recipient for one in sealed.keys], "identity_file": str(path)}
        sealed.shop.set(encryption=encryption)
        run = sealed.restore()
    else:
        run = sealed.restore(sealed.keys[0].secret, safety=True)
    assert run.status == 0, run.output
    # The safety backup is encrypted and signed like any other.
    endings = {".zip.age", ".manifest.json", ".manifest.sig"}
    safety = [key for key in keys(sealed) if sealed.shop.backup.id not in key]
    assert {key[key.index(".") :] for key in (one.rpartition("/")[2] for one in safety)} == (
        set() if which else endings
    )
    assert sealed.shop.live_contents() == sealed.shop.contents
    assert sealed.shop.project.litter() == []
    sealed.require_silence(run)


def test_whoever_has_no_key_or_another_one_is_told_whose_it_takes(sealed: Sealed) -> None:
    other = new_age_key()
    recipients = [one.recipient for one in sealed.keys]
    run = sealed.restore(other.secret)
    sealed.require_untouched(run, "test_backup_is_whole", "does not open it", other.recipient, *recipients)
    assert other.secret not in run.output + run.xml + run.log
    sealed.require_untouched(sealed.restore(), "test_backup_is_whole", "there is no key", *recipients)


def test_a_flipped_byte_is_refused(sealed: Sealed) -> None:
    key, data = sealed.read(".zip.age")
    middle = len(data) // 2
    put(sealed, key, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    run = sealed.restore(sealed.keys[0].secret)
    sealed.require_untouched(run, "test_backup_is_whole", "is not what was backed up", sealed.shop.backup.sha256)


def test_a_manifest_that_somebody_changed_is_refused(sealed: Sealed) -> None:
    key, data = sealed.read(".manifest.json")
    put(sealed, key, data.replace(b'"kind": "scheduled"', b'"kind": "scheduled" '))
    run = sealed.restore(sealed.keys[0].secret, f"--backup={sealed.shop.backup.id}")
    sealed.require_untouched(run, "test_choose_backup", "not authentic")


@pytest.mark.slow
def test_a_signal_before_it_is_verified_leaves_nothing(made: Sealed, tmp_path: Path) -> None:
    with running_proxy(made.bucket.server.url) as proxy:
        stored = keys(made)
        stall = proxy.inject(Fault("stall", "PUT", path=r"manifest\.json$", times=1, seconds=3))
        variables = {**made.shop.variables, "store": {**store_of(made), "endpoint_url": proxy.url}}
        project = make_project(tmp_path / "killed", PYTHONPATH=str(REPOSITORY), **made.bucket.server.variables)
        project.write_inventory({"staging": {"shop": variables}})
        with project.begin("-p", "tests.lab.pause", env="staging") as begun:
            begun.wait_until(lambda: stall.struck > 0)
            assert any(key.endswith(".manifest.sig") for key in set(keys(made)) - set(stored))
            begun.send(signal.SIGTERM)
            run = begun.finish()
    assert run.status in (1, 2), run.output
    assert run.failed_step().step == "test_publish_manifest"
    assert (keys(made), made.bucket.unfinished(), project.litter()) == (stored, [], [])
    assert not made.shop.application.frozen.exists()


def store_of(sealed: Sealed) -> dict[str, object]:
    store: Any = sealed.shop.variables["store"]
    return dict(store)


@dataclass(frozen=True)
class Plain:
    """A database alone, whose backup is one `.sql.age` in a folder."""

    project: Project
    server: PostgresServer
    database: str
    key: AgeKey

    def sidecar(self) -> Sidecar:
        (path,) = self.project.store.rglob("*.manifest.json")
        return read_sidecar(path.read_bytes(), path.name)

    def rows(self) -> list[tuple[Any, ...]]:
        with self.server.connect(self.database) as connection:
            return connection.execute("SELECT count(*), sum(n) FROM rows").fetchall()


@pytest.fixture
def plain(tmp_path: Path, wheel_postgres: PostgresServer) -> Iterator[Plain]:
    database, key = f"plain_{secrets.token_hex(4)}", new_age_key()
    wheel_postgres.create_database(
        database, "CREATE TABLE rows AS SELECT n, 'row no. ' || n AS t FROM generate_series(1, 3000) n"
    )
    project = make_project(tmp_path / "plain")
    own: dict[str, object] = {"database_url": wheel_postgres.url(database), "pg_bindir": str(wheel_postgres.bindir)}
    own |= {"backup_dir": str(project.store), "protected": False}
    project.write_inventory({"prod": {"app": {**own, "encryption": {"recipients": [key.recipient]}}}})
    yield Plain(project, wheel_postgres, database, key)
    with wheel_postgres.connect() as connection:
        names = connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (database,)
        ).fetchall()
    for (name,) in names:
        wheel_postgres.drop_database(name)


@pytest.mark.slow
def test_plain_sql_in_a_folder_is_encrypted_and_comes_back(plain: Plain) -> None:
    run = plain.project.run(environ={"OPSPROOF_AGE_IDENTITY": plain.key.secret})
    assert run.status == 0, run.output
    (path,) = plain.project.store.rglob("*.sql.age")
    stored = path.read_bytes()
    assert b"row no. 77" not in stored
    assert b"row no. 77" in plain.key.decrypt(stored)
    sidecar = plain.sidecar()
    assert (sidecar.name, sidecar.bytes, sidecar.sealed) == (path.name, len(stored), "age")
    before = plain.rows()
    with plain.server.connect(plain.database) as connection:
        connection.execute("DELETE FROM rows WHERE n > 5")
    how: dict[str, Any] = {"action": "actions/test_restore.py"}
    run = plain.project.run("--no-safety-backup", **how)
    assert run.status == 1, run.output
    assert "there is no key" in run.failed_step().message
    assert plain.rows() != before
    run = plain.project.run("--no-safety-backup", environ={"OPSPROOF_AGE_IDENTITY": plain.key.secret}, **how)
    assert run.status == 0, run.output
    assert plain.rows() == before
    assert path.read_bytes() == stored, "the only copy is where it was"
    assert plain.project.litter() == []
    assert plain.key.secret not in run.output + run.log + run.xml + repr(run.events)
