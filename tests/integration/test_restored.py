"""The proof of a restored database: equal after a real dump and pg_restore, and each kind of difference is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.errors import DumpError, ProofError
from opsproof.inspection.restores.restored import prove
from opsproof.system.postgres.dump import Clients
from tests.lab.captured import clients_of, make_database
from tests.lab.postgres_server import PostgresServer
from tests.lab.provable import COPY, RICH, TakenBackup, having_roles, load, spoil, take
from tests.lab.shapes import SHAPES


@pytest.fixture(scope="module")
def server(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A server with the roles that the databases below need."""
    with having_roles(postgres):
        yield postgres


@pytest.fixture(scope="module")
def rich(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> TakenBackup:
    return take(server, tmp_path_factory.mktemp("rich"), *RICH)


@pytest.fixture
def copy(server: PostgresServer) -> Iterator[Clients]:
    """An empty database to restore into."""
    yield clients_of(server, make_database(server, COPY))
    server.drop_database(COPY)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_table_is_equal_after_a_restore(
    shape: str, server: PostgresServer, copy: Clients, tmp_path: Path
) -> None:
    backup = take(server, tmp_path, *SHAPES[shape])
    load(server, copy.address, backup)
    proof = prove(copy, backup, backup.dump)
    assert (proof.tables, proof.rows) == (len(backup.contents), sum(table.rows for table in backup.contents))
    assert (proof.findings, proof.unverified) == ((), ())


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "SQL_ASCII"])
def test_names_in_other_encodings(encoding: str, server: PostgresServer, copy: Clients, tmp_path: Path) -> None:
    statements = ('CREATE TABLE "Größe" (ä text)', "INSERT INTO \"Größe\" VALUES ('ö')")
    backup = take(server, tmp_path, *statements, encoding=encoding)
    server.drop_database(COPY)
    make_database(server, COPY, encoding)
    load(server, copy.address, backup)
    assert prove(copy, backup, backup.dump).unverified == ()
    spoil(server, 'GRANT SELECT ON "Größe" TO proof_reader')
    with pytest.raises(ProofError) as caught:
        prove(copy, backup, backup.dump)
    assert 'extra: GRANT SELECT ON TABLE public."Größe" TO "proof_reader"' in caught.value.found


def test_a_whole_database_is_equal_after_a_restore(server: PostgresServer, copy: Clients, rich: TakenBackup) -> None:
    load(server, copy.address, rich)
    proof = prove(copy, rich, rich.dump)
    assert (proof.tables, proof.rows, proof.large_objects, proof.sequences) == (1, 50, 2, 3)
    assert (proof.findings, proof.unverified) == ((), ())


DIFFERENCES = {
    "a row changed": (("UPDATE t SET n = 5 WHERE id = 50",), "public.t: 50 rows"),
    "a row missing": (("DELETE FROM t WHERE id = 7",), "49 rows"),
    "a table missing": (("DROP TABLE t CASCADE",), "public.t: 50 rows"),
    "a table extra": (("CREATE TABLE more ()",), "public.more: nothing in the backup, 0 rows"),
    "a sequence behind": (("SELECT setval('t_id_seq', 49)",), "sequence public.t_id_seq: 50 in the backup, 49"),
    "a sequence that counts down behind": (("SELECT setval('down', -2)",), "sequence public.down: -3 in the backup"),
    "a sequence missing": (("DROP SEQUENCE unused",), "sequence public.unused is only in the backup"),
    "an index invalid": (
        ("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'by_n'::regclass",),
        "index public.by_n is not valid",
    ),
    "an index missing": (("DROP INDEX by_n",), "INDEX public.by_n: missing: CREATE INDEX by_n"),
    "a constraint not validated": (
        ("UPDATE pg_constraint SET convalidated = false WHERE conname = 'positive'",),
        "constraint public.t positive is not validated",
    ),
    "a constraint missing": (("ALTER TABLE t DROP CONSTRAINT t_state_check",), "CHECK (((state)::text"),
    "a grant missing": (("REVOKE UPDATE (n) ON t FROM proof_reader CASCADE",), "missing: GRANT UPDATE(n)"),
    "a grant extra": (("GRANT DELETE ON t TO proof_other",), 'extra: GRANT DELETE ON TABLE public.t TO "proof_other"'),
    "a grant by default missing": (
        ('ALTER DEFAULT PRIVILEGES FOR ROLE "proof owner" REVOKE SELECT ON TABLES FROM proof_reader',),
        "missing: ALTER DEFAULT PRIVILEGES",
    ),
    "an owner other": (("ALTER VIEW w OWNER TO proof_other",), 'public.w OWNER TO "proof_other"'),
    "a policy for others": (('ALTER POLICY "mine; TO you" ON t TO proof_other',), "POLICY public.t mine; TO you"),
    "a large object changed": (("SELECT lo_put(4001, 0, 'x')",), "large object 4001: 3 rows"),
    "a large object missing": (("SELECT lo_unlink(4001)",), "2 large objects of 6 bytes in the backup, 1 large"),
    "a large object's owner other": (
        ("ALTER LARGE OBJECT 4001 OWNER TO proof_other",),
        "large object 4001: of 'proof owner' in the backup, of 'proof_other'",
    ),
    "a large object's grant missing": (
        ("REVOKE ALL ON LARGE OBJECT 4001 FROM proof_reader",),
        "large object 4001: granted to 'proof_reader' (SELECT) only in the backup",
    ),
    "a table unlogged": (("DROP PUBLICATION news", "ALTER TABLE t SET UNLOGGED"), "extra: CREATE UNLOGGED TABLE"),
    "an event trigger off": (("ALTER EVENT TRIGGER watching DISABLE",), "extra: ALTER EVENT TRIGGER watching DISABLE"),
    "a publication missing": (("DROP PUBLICATION news",), "missing: CREATE PUBLICATION news"),
    "an extension missing": (("DROP EXTENSION hstore",), "extension hstore is only in the backup"),
    "an extension more": (("CREATE EXTENSION file_fdw",), "extension file_fdw is only in the restored database"),
    "a view of other rows": (
        ("CREATE OR REPLACE VIEW w AS SELECT * FROM t WHERE state IN ('a', 'c')",),
        "VIEW public.w: extra",
    ),
    "a function of another body": (
        ("CREATE OR REPLACE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN  END$$",),
        "FUNCTION public.watch(): extra",
    ),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_difference_is_told(difference: str, server: PostgresServer, copy: Clients, rich: TakenBackup) -> None:
    load(server, copy.address, rich)
    statements, told = DIFFERENCES[difference]
    spoil(server, *statements)
    with pytest.raises(ProofError, match="'proof copy' is not what the backup says") as caught:
        prove(copy, rich, rich.dump)
    assert told in caught.value.found
    assert caught.value.kept == "the live database is as it was"


def test_all_differences_are_told_at_once(server: PostgresServer, copy: Clients, rich: TakenBackup) -> None:
    load(server, copy.address, rich)
    spoil(server, "DELETE FROM t WHERE id = 7", "DROP SEQUENCE unused", "ALTER VIEW w OWNER TO proof_other")
    with pytest.raises(ProofError) as caught:
        prove(copy, rich, rich.dump)
    assert all(word in caught.value.found for word in ("public.t: 50 rows", "public.unused", "VIEW public.w"))


def test_of_many_differences_twenty_are_shown(server: PostgresServer, copy: Clients, rich: TakenBackup) -> None:
    load(server, copy.address, rich)
    spoil(server, "DO $$ BEGIN FOR n IN 1..25 LOOP EXECUTE format('CREATE SEQUENCE s%s', n); END LOOP; END $$")
    with pytest.raises(ProofError) as caught:
        prove(copy, rich, rich.dump)
    assert len(caught.value.found.splitlines()) == 21


def test_a_sequence_that_is_ahead_is_no_difference(server: PostgresServer, copy: Clients, rich: TakenBackup) -> None:
    load(server, copy.address, rich)
    spoil(server, "SELECT setval('t_id_seq', 1000)", "SELECT setval('down', -1000)", "SELECT nextval('unused')")
    assert prove(copy, rich, rich.dump).sequences == 3


def test_another_version_of_an_extension_is_a_warning(server: PostgresServer, copy: Clients, rich: TakenBackup) -> None:
    load(server, copy.address, rich)
    spoil(server, "UPDATE pg_extension SET extversion = '0.1' WHERE extname = 'hstore'")
    (finding,) = prove(copy, rich, rich.dump).findings
    assert (finding.found, finding.blocks) == ("0.1", False)


def test_counts_only_see_the_number_of_rows(server: PostgresServer, copy: Clients, tmp_path: Path) -> None:
    backup = take(server, tmp_path, "CREATE TABLE t AS SELECT 1 AS a", counts=True)
    load(server, copy.address, backup)
    spoil(server, "UPDATE t SET a = 2")
    assert prove(copy, backup, backup.dump).unverified == ("the content of the rows: only their number was counted",)
    spoil(server, "INSERT INTO t VALUES (3)")
    with pytest.raises(ProofError) as caught:
        prove(copy, backup, backup.dump)
    assert "public.t: 1 rows in the backup, 2 rows in the restored" in caught.value.found


def test_roles_that_others_took_the_place_of(server: PostgresServer, copy: Clients, tmp_path: Path) -> None:
    backup = take(server, tmp_path, "CREATE TABLE t (a int)", 'ALTER TABLE t OWNER TO "proof owner"',
                  "GRANT SELECT ON t TO proof_reader")  # fmt: skip
    load(server, copy.address, backup, "--no-owner", "--no-acl")
    spoil(server, "ALTER TABLE t OWNER TO proof_other", "GRANT SELECT ON t TO proof_reader")
    mapped = {"proof owner": "proof_other"}
    assert prove(copy, backup, backup.dump, mapped).unverified == ()
    with pytest.raises(ProofError, match="2 differences"):
        prove(copy, backup, backup.dump)
    merged = {**mapped, "proof_reader": "proof_other"}
    (sentence,) = prove(copy, backup, backup.dump, merged).unverified
    assert sentence.startswith("grants: --map-role puts one role")


def test_a_backup_of_others_is_proven_as_far_as_it_can_be(
    server: PostgresServer, copy: Clients, rich: TakenBackup
) -> None:
    load(server, copy.address, rich)
    foreign = replace(rich, manifest=None, contents=())
    proof = prove(copy, foreign, foreign.dump)
    assert (proof.tables, proof.rows) == (1, 50)
    assert [sentence.split(":")[0] for sentence in proof.unverified] == ["rows, sequences and extensions"]
    spoil(server, "DROP INDEX by_n")
    with pytest.raises(ProofError) as caught:
        prove(copy, foreign, foreign.dump)
    assert "INDEX public.by_n: missing" in caught.value.found


@pytest.fixture
def older(system_postgres: PostgresServer, wheel_postgres: PostgresServer, tmp_path: Path) -> Iterator[TakenBackup]:
    """A backup from the system's server; the wheel's, which is newer, has its roles, too."""
    statements = (
        *RICH,
        # A key word from 17 on: other majors quote it, or do not.
        "CREATE TABLE json_value (json_value int NOT NULL PRIMARY KEY, b varchar CHECK (b IN ('a', 'b')))",
        "COMMENT ON COLUMN json_value.json_value IS 'quoted by some'",
        "CREATE SEQUENCE json_table",
    )
    with having_roles(system_postgres), having_roles(wheel_postgres):
        if major_of(system_postgres) >= major_of(wheel_postgres):
            pytest.skip("no server that is older than the wheel's")
        yield take(system_postgres, tmp_path, *statements)
        wheel_postgres.drop_database(COPY)


def major_of(server: PostgresServer) -> int:
    return int((server.folder / "data" / "PG_VERSION").read_text())


def test_a_newer_server_has_every_object_with_its_owner(older: TakenBackup, wheel_postgres: PostgresServer) -> None:
    copy = clients_of(wheel_postgres, make_database(wheel_postgres, COPY))
    load(wheel_postgres, copy.address, older)
    proof = prove(copy, older, older.dump)
    assert (proof.tables, proof.rows, proof.sequences) == (2, 50, 4)
    (sentence,) = proof.unverified
    assert sentence.startswith("the schema's text and grants: PostgreSQL ")
    assert {finding.subject for finding in proof.findings} <= {"extensions"}
    spoil(wheel_postgres, "DROP INDEX by_n", "ALTER TABLE json_value OWNER TO proof_other")
    with pytest.raises(ProofError) as caught:
        prove(copy, older, older.dump)
    assert set(caught.value.found.splitlines()) == {
        "INDEX public.by_n: missing",
        "TABLE public.json_value: of postgres in the dump, of proof_other in the copy",
    }


def test_plain_sql_leaves_the_schema_unverified(server: PostgresServer, copy: Clients, rich: TakenBackup) -> None:
    load(server, copy.address, rich)
    plain = replace(rich, database_format="plain")
    proof = prove(copy, plain, plain.dump)
    assert [sentence.split(":")[0] for sentence in proof.unverified] == [
        "the content of large objects",
        "schema, owners and grants",
    ]
    assert [finding.found for finding in proof.findings] == ["public.t never_looked_at"]


def test_a_dump_that_cannot_be_read_is_an_error(server: PostgresServer, copy: Clients, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"PGDMP\x01\x63\x00 of a version to come")
    with pytest.raises(DumpError, match="cannot read the dump"):
        prove(copy, TakenBackup(None, broken, ()), broken)
