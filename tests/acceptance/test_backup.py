"""`pytest actions/test_backup.py` on both servers and both kinds of store: what it leaves and what it says."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
from zipfile import ZipFile

import pytest

import actions.test_backup
import opsproof.archive.writing.bundle
from opsproof.archive.manifest import Manifest, TableRecord
from tests.lab.finished_backup import FinishedBackup

STEPS = [name for name in vars(actions.test_backup.TestBackup) if name.startswith("test_")]


def manifest_of(finished: FinishedBackup) -> Manifest:
    return Manifest.model_validate_json(finished.read("manifest.json"))


def test_every_step_is_a_passed_case_in_order_with_its_seconds(finished_backup: FinishedBackup) -> None:
    run = finished_backup.run
    assert run.status == 0
    assert [(case.step, case.outcome, case.target) for case in run.cases] == [
        (step, "passed", "shop") for step in STEPS
    ]
    assert all(float(case.properties["seconds"]) >= 0 for case in run.cases)


def test_the_xml_names_the_backup_as_it_is_in_the_store(finished_backup: FinishedBackup) -> None:
    properties = finished_backup.run.cases[-1].properties
    data = finished_backup.bundle.read_bytes()
    assert properties["backup_id"] == finished_backup.sidecar.id
    assert properties["backup_bytes"] == str(len(data)) == str(finished_backup.sidecar.bytes)
    assert properties["backup_sha256"] == hashlib.sha256(data).hexdigest() == finished_backup.sidecar.sha256
    assert properties["backup_location"].endswith(f"/{finished_backup.bundle.name}")


def test_the_store_holds_the_bundle_and_its_sidecar_and_nothing_else(finished_backup: FinishedBackup) -> None:
    folder = "acme/backups/" if finished_backup.store == "S3" else ""
    backup = finished_backup.sidecar.id
    assert finished_backup.names == (f"{folder}{backup}.manifest.json", f"{folder}{backup}.zip")


def test_the_sidecar_is_written_last(finished_backup: FinishedBackup) -> None:
    if finished_backup.store == "S3":
        writes = [
            f"{one.method} {one.path.rsplit('.', 1)[-1]}"
            for one in finished_backup.requests
            if one.method in ("PUT", "POST") and "opsproof-check" not in one.path and "/journals/" not in one.path
        ]
        assert writes == ["POST zip", "PUT zip", "POST zip", "PUT json"]
    else:
        times = {path.suffix: path.stat().st_mtime_ns for path in finished_backup.project.store.glob("*.*")}
        assert times[".json"] > times[".zip"]
    steps = [event["step"] for event in finished_backup.run.named("step") if event["when"] == "call"]
    names = [event["event"] for event in finished_backup.run.events if event["event"].startswith(("bundle", "backup"))]
    assert (steps[-1], names) == ("test_publish_manifest", ["bundle stored", "backup verified"])


def test_the_bundle_has_every_member_that_its_format_promises(finished_backup: FinishedBackup) -> None:
    described = (opsproof.archive.writing.bundle.__doc__ or "").splitlines()
    promised = [
        line.split()[0].replace("{db}_{timestamp}", finished_backup.sidecar.id) for line in described[2:] if line
    ]
    with ZipFile(finished_backup.bundle) as bundle:
        names = bundle.namelist()
    order = list(dict.fromkeys("filestore/" if name.startswith("filestore/") else name for name in names))
    assert order == promised
    assert len(names) == len(set(names))


def test_the_listing_has_size_and_hash_of_every_member(finished_backup: FinishedBackup) -> None:
    listed = [json.loads(line) for line in finished_backup.read("members.jsonl").splitlines()]
    with ZipFile(finished_backup.bundle) as bundle:
        found = [
            {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name in bundle.namelist()
            if name not in ("members.jsonl", "manifest.json") and (data := bundle.read(name)) is not None
        ]
    assert listed == found
    totals = manifest_of(finished_backup).totals
    assert (totals.members, totals.member_bytes) == (len(found), sum(int(str(one["bytes"])) for one in found))
    assert totals.members_sha256 == hashlib.sha256(finished_backup.read("members.jsonl")).hexdigest()
    assert totals.tables_sha256 == hashlib.sha256(finished_backup.read("tables.jsonl")).hexdigest()


def test_the_manifest_agrees_with_the_server(finished_backup: FinishedBackup) -> None:
    manifest = manifest_of(finished_backup)
    assert manifest == finished_backup.sidecar.manifest
    application = finished_backup.application
    with application.connect() as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), current_setting('server_version_num')::int,"
            " (SELECT system_identifier::text FROM pg_control_system()), pg_get_userbyid(datdba),"
            " pg_encoding_to_char(encoding), datcollate, shobj_description(oid, 'pg_database')"
            " FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    server, database = manifest.server, manifest.database
    assert row == (
        server.version,
        server.version_num,
        server.system_identifier,
        database.owner,
        database.encoding,
        database.collate,
        database.comment,
    )
    assert database.name == application.name
    assert [(one.role, one.setting) for one in database.settings] == [(None, "work_mem=5MB")]
    assert [one.name for one in database.extensions] == ["plpgsql"]
    assert server.client_version.split(".")[0] == server.version.split(".")[0]


def test_the_manifest_knows_the_application_and_who_ran_it(finished_backup: FinishedBackup) -> None:
    manifest = manifest_of(finished_backup)
    assert (manifest.environment, manifest.target, manifest.kind) == ("prod", "shop", "scheduled")
    assert manifest.customer == ("acme" if finished_backup.store == "S3" else "")
    assert manifest.alembic_revisions == ("c0ffee123456",)
    assert manifest.odoo is not None
    assert manifest.odoo.model_dump() == {"version": "14.0.1.3", "modules": {"base": "14.0.1.3", "sale": "14.0.1.1"}}
    assert (manifest.author.job, manifest.author.commit) == ("https://ci.example.org/jobs/7", "abc1")
    assert manifest.author.user
    assert {one.sequence: one.last_value for one in manifest.sequences}["public.never_used"] is None
    assert {one.sequence: one.last_value for one in manifest.sequences}["public.res_partner_id_seq"] == 900
    assert (manifest.totals.large_objects, manifest.totals.large_object_bytes) == (1, 15_000)
    assert finished_backup.sidecar.checks == tuple(STEPS[:-1])
    assert manifest.started <= manifest.taken <= finished_backup.sidecar.verified


def test_counts_and_files_are_those_of_the_original(finished_backup: FinishedBackup) -> None:
    tables = [TableRecord.model_validate_json(line) for line in finished_backup.read("tables.jsonl").splitlines()]
    found = {one.table.replace('"', ""): one.rows for one in tables}
    original = {
        name.replace('"', ""): rows for name, (rows, _) in finished_backup.contents.items() if "object " not in name
    }
    written = {"public.ir_attachment", "public.mail_message"} if finished_backup.is_moving else set()
    assert {name: rows for name, rows in found.items() if name not in written} == {
        name: rows for name, rows in original.items() if name not in written
    }
    assert all(found[name] > original[name] for name in written)
    with ZipFile(finished_backup.bundle) as bundle:
        files = {
            name.removeprefix("filestore/"): hashlib.sha256(bundle.read(name)).hexdigest()
            for name in bundle.namelist()
            if name.startswith("filestore/")
        }
    assert files.items() >= finished_backup.files.items()
    assert finished_backup.is_moving or len(files) == len(finished_backup.files)
    filestore = manifest_of(finished_backup).filestore
    assert filestore is not None
    assert (filestore.files, filestore.missing, filestore.content_addressed) == (len(files), (), True)


@pytest.mark.parametrize("program", ["unzip", "pg_restore", "psql"])
def test_other_programs_read_the_bundle(finished_backup: FinishedBackup, program: str) -> None:
    backup = finished_backup.sidecar.id
    bindir = finished_backup.server.bindir
    if program == "unzip":
        done = subprocess.run(["unzip", "-tq", str(finished_backup.bundle)], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout.split()[:4]) == (0, ["No", "errors", "detected", "in"])
    elif program == "pg_restore":
        data = finished_backup.read(f"{backup}.dump")
        argv = [str(bindir / "pg_restore"), "--exit-on-error", "--file=-"]
        done = subprocess.run(argv, input=data.decode("latin1"), encoding="latin1", capture_output=True, timeout=60)
        lines = [line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]
        ours = finished_backup.read(f"{backup}.sql").decode("latin1").splitlines()
        assert lines == [line for line in ours if not line.startswith(("\\restrict", "\\unrestrict"))]
    else:
        finished_backup.server.create_database("by_psql", owner=finished_backup.application.role)
        try:
            script = finished_backup.project.folder / "by_psql.sql"
            script.write_bytes(finished_backup.read(f"{backup}.sql"))
            argv = [str(bindir / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction"]
            argv += ["-d", finished_backup.server.address("by_psql").conninfo(), "-f", str(script)]
            environ = {"PGPASSWORD": finished_backup.server.password}
            done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60)
            # A dump wraps its large objects into a transaction of their own, of which psql -1 only warns.
            loud = [line for line in done.stderr.splitlines() if "transaction in progress" not in line]
            assert (done.returncode, loud) == (0, [])
            with finished_backup.server.connect("by_psql") as connection:
                count = connection.execute("SELECT count(*) FROM res_partner").fetchone()
            assert count == (500,)
        finally:
            finished_backup.server.drop_database("by_psql")


def test_nothing_is_left_and_what_is_kept_is_private(finished_backup: FinishedBackup) -> None:
    project = finished_backup.project
    assert project.litter() == []
    assert not finished_backup.application.frozen.exists()
    kept = [*project.logs.iterdir(), *(path for path in project.store.rglob("*") if path.is_file())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert stat.S_IMODE(project.logs.stat().st_mode) == 0o700
    assert sorted(path.suffix for path in project.logs.iterdir()) == [".jsonl", ".log"]


def test_the_header_and_the_summary_say_what_was_done(finished_backup: FinishedBackup) -> None:
    output, manifest = finished_backup.run.output, finished_backup.sidecar.manifest
    address = finished_backup.application.address
    assert f"database   {address.name} on {address.server}, role {address.user}" in output
    assert "from       hosts.yml: " in output
    assert f"shop: backup {manifest.id} is stored and verified" in output
    assert f"SHA-256    {finished_backup.sidecar.sha256}" in output
    assert f"{manifest.totals.tables} tables, {manifest.totals.rows:,} rows" in output
    assert "14 passed" in output
