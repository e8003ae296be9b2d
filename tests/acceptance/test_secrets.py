"""No password and no key in any file, output, report or command line, in good runs and in failing ones."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus
from zipfile import ZipFile, is_zipfile

import pytest

from tests.lab.action_run import REPOSITORY, ActionRun, Project, make_project
from tests.lab.application import Application, running_application
from tests.lab.bucket import Bucket, make_bucket
from tests.lab.fault_proxy import Fault, FaultProxy, running_proxy
from tests.lab.moto_server import S3Server
from tests.lab.postgres_server import PostgresServer
from tests.lab.watcher import ProcessWatcher

# As S3's own look: base64 with the characters that a URL must escape.
SECRET_KEY = "wJalr/XUtnFEMI+K7MDENG=bPxRfi" + secrets.token_hex(4)
TOKEN = "FwoGZXIvYXdzEJr//+AaDH==" + secrets.token_hex(150)


def forms(secret: str) -> set[str]:
    """Return a text as it is, and as a URL, JSON or repr writes it; of a long one also its halves."""
    written = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
    written |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    # A report that cuts a long text in the middle must not show its beginning either.
    return written | {form[:24] for form in written} | {form[-16:] for form in written}


@dataclass(frozen=True)
class Planted:
    """A project whose database password, secret key and session token are known and looked for."""

    project: Project
    application: Application
    bucket: Bucket
    proxy: FaultProxy

    @property
    def texts(self) -> set[str]:
        """Everything that may not appear."""
        return forms(self.application.password) | forms(SECRET_KEY) | forms(TOKEN)

    def run(self, *arguments: str, **how: object) -> tuple[ActionRun, ProcessWatcher]:
        """Run a backup under observation."""
        with ProcessWatcher(self.texts) as watcher:
            run = self.project.run("-p", "tests.lab.pause", *arguments, **how)
        return run, watcher

    def require_silence(self, run: ActionRun, watcher: ProcessWatcher) -> None:
        """Check that nothing of them is in the output, on the disk, or was in a command line."""
        assert watcher.samples > 5
        assert watcher.found == set()
        places = {"output": run.output.encode(), "xml": run.xml.encode()}
        for path in self.project.folder.rglob("*"):
            # The inventory holds what the operator put there.
            if path.is_file() and path != self.project.inventory:
                places[str(path)] = path.read_bytes()
        assert len(places) > 4
        found = {place for place, data in places.items() for text in self.texts if text.encode() in data}
        assert found == set()


@pytest.fixture(scope="module")
def application(wheel_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    with running_application(wheel_postgres, tmp_path_factory.mktemp("application"), attachments=4) as application:
        yield application


@pytest.fixture
def planted(tmp_path: Path, application: Application, moto_server: S3Server) -> Iterator[Planted]:
    bucket = make_bucket(moto_server)
    with running_proxy(moto_server.url) as proxy:
        environ = {
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_SESSION_TOKEN": TOKEN,
            "PYTHONPATH": str(REPOSITORY),
        }
        project = make_project(tmp_path / "project", **environ)
        planted = Planted(project, application, bucket, proxy)
        describe(planted)
        yield planted


def describe(planted: Planted, **variables: object) -> None:
    store = {"bucket": planted.bucket.name, "endpoint_url": planted.proxy.url, "region": "us-east-1"}
    own: dict[str, object] = {"odoo_conf": str(planted.application.odoo_conf), "customer": "acme", "store": store}
    own["pg_bindir"] = str(planted.application.server.bindir)
    planted.project.write_inventory({"prod": {"shop": {**own, **variables}}})


def url_of(application: Application, password: str) -> str:
    address = application.address
    login = f"{quote(address.user, safe='')}:{quote(password, safe='')}"
    return f"postgresql://{login}@{address.host}:{address.port}/{address.name}"


def test_a_good_backup_keeps_them_to_itself(planted: Planted) -> None:
    run, watcher = planted.run("-v", "--log-cli-level=DEBUG")
    assert run.status == 0, run.output
    assert {"pg_dump", "pg_restore", "psql"} & watcher.seen
    planted.require_silence(run, watcher)
    signatures = {request.headers.get("X-Amz-Security-Token") for request in planted.proxy.requests}
    assert signatures == {TOKEN}, "the token is really used"
    texts = [text.encode() for text in planted.texts]
    keys = planted.bucket.keys()
    assert len(keys) == 2
    for key in keys:
        path = planted.project.folder / "stored"
        planted.bucket.client.download_file(planted.bucket.name, key, str(path))
        members = [path.read_bytes()]
        if is_zipfile(path):
            with ZipFile(path) as bundle:
                members += [bundle.read(name) for name in bundle.namelist()]
                assert len(members) > 8
        assert not [text for text in texts for member in members if text in member]


def test_a_password_in_a_url_is_kept_as_well(planted: Planted) -> None:
    own = {"odoo_conf": None, "database_url": url_of(planted.application, planted.application.password)}
    describe(planted, **own)
    run, watcher = planted.run()
    assert run.status == 0, run.output
    planted.require_silence(run, watcher)


FAILURES = {
    "wrong password": "test_database_exists",
    "store denies": "test_store_takes_backups",
    "store fails": "test_complete_upload",
    "table without permission": "test_dump_database",
    "unexpected error with every local variable shown": "test_dump_database",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_backup_keeps_them_to_itself(planted: Planted, failure: str) -> None:
    arguments: list[str] = []
    application, proxy = planted.application, planted.proxy
    cleaned = ""
    if failure == "wrong password":
        # The planted password stays the one that is looked for; the role's own is another one now.
        with application.connect() as connection:
            connection.execute(f"ALTER ROLE \"{application.role}\" PASSWORD 'other'".encode())
        describe(planted, odoo_conf=None, database_url=url_of(application, application.password))
    elif failure == "store denies":
        proxy.inject(Fault("answer", status=403, code="SignatureDoesNotMatch"))
    elif failure == "store fails":
        proxy.inject(Fault("answer", "POST", query="uploadId="))
    elif failure == "table without permission":
        cleaned = "DROP TABLE secret"
        with application.connect() as connection:
            connection.execute("CREATE TABLE secret ()")
    else:
        (planted.project.folder / "broken.py").write_text(
            "from opsproof.system.hosts import host\n"
            "def pytest_collection_finish():\n"
            "    def broken(*argv, **how): raise TypeError(f'unexpected {how}')\n"
            "    host.Pipe.__init__ = broken\n"
        )
        arguments = ["-p", "broken", "--showlocals", "--tb=long", "--full-trace", "-vv"]
    try:
        run, watcher = planted.run(*arguments)
    finally:
        with application.connect() as connection:
            if cleaned:
                connection.execute(cleaned.encode())
            password = application.password.replace("'", "''")
            connection.execute(f"ALTER ROLE \"{application.role}\" PASSWORD '{password}'".encode())
    assert run.status == 1, run.output
    assert run.failed_step().step == FAILURES[failure], run.output
    planted.require_silence(run, watcher)
    assert planted.bucket.is_empty()


@pytest.mark.parametrize("option", ["--list-backups", "--list-targets"])
def test_listings_keep_them_to_themselves(planted: Planted, option: str) -> None:
    describe(planted, odoo_conf=None, database_url=url_of(planted.application, planted.application.password))
    with ProcessWatcher(planted.texts) as watcher:
        run = planted.project.run(option)
    assert run.status == 0, run.output
    assert watcher.found == set()
    assert [text for text in planted.texts if text in run.output] == []


def test_an_inventory_that_is_wrong_does_not_repeat_what_it_holds(planted: Planted) -> None:
    for broken in (
        {"database_url": url_of(planted.application, planted.application.password).replace(":", "", 1)},
        {"database_url": f"postgresql://role:{planted.application.password}@127.0.0.1/shop"},
        {"database_url": url_of(planted.application, planted.application.password), "lock_timeout": "long"},
    ):
        describe(planted, odoo_conf=None, **broken)
        run, watcher = planted.run()
        assert run.status == 4, run.output
        assert watcher.found == set()
        assert [text for text in planted.texts if text in run.output + run.xml + run.log] == []
