"""Client programs: found by the server's major, and found out when they do something else than they should."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsproof.errors import DumpError, OpsproofError, ProgramMissing, ProofError
from opsproof.system.postgres.dump import find_client_programs
from opsproof.target import DatabaseAddress
from tests.lab.captured import LOCAL, captured, clients_of, contents_of, leaving_nothing, small, temporary
from tests.lab.client_programs import ENDS_WELL_HALFWAY, FAILS_AFTER_A_WHOLE_DUMP, KILLED_MIDWAY, wrap_clients
from tests.lab.postgres_server import SYSTEM_VERSIONS, PostgresServer

__all__ = ["small", "temporary"]


class TestPrograms:
    """Client programs that do something else than they should."""

    def run(self, server: PostgresServer, address: DatabaseAddress, folder: Path, **scripts: str) -> None:
        clients = clients_of(server, address, wrap_clients(folder, server.bindir, **scripts))
        with captured(clients) as capture:
            contents_of(capture)

    def test_the_wrapped_programs_work(
        self, wheel_postgres: PostgresServer, small: DatabaseAddress, tmp_path: Path
    ) -> None:
        """Else every failure below would prove nothing."""
        honest = '"$REAL" "$@"'
        self.run(wheel_postgres, small, tmp_path / "bin", pg_dump=honest, pg_restore=honest, psql=honest)

    @pytest.mark.parametrize(
        ("scripts", "error", "words"),
        [
            ({"pg_dump": FAILS_AFTER_A_WHOLE_DUMP}, DumpError, "pg_dump ended with exit status 1"),
            ({"pg_dump": ENDS_WELL_HALFWAY}, DumpError, "pg_restore ended with exit status 1"),
            ({"pg_dump": KILLED_MIDWAY}, DumpError, "pg_dump was killed by signal 9"),
            ({"pg_dump": "exit 0"}, DumpError, "pg_restore ended with exit status 1"),
            ({"pg_dump": "cat /dev/null; echo hello; exit 0"}, DumpError, "pg_restore ended with exit status 1"),
            ({"pg_dump": '"$REAL" --exclude-table-data=small "$@"'}, ProofError, "differ from the snapshot"),
            ({"pg_dump": '"$REAL" --schema-only "$@"'}, ProofError, "differ from the snapshot"),
            ({"pg_dump": '"$REAL" "$@" --format=plain'}, DumpError, "pg_restore ended with exit status 1"),
            ({"pg_restore": '"$REAL" "$@" | head -c 50000; exit 0'}, DumpError, "ended inside the data"),
            ({"pg_restore": '"$REAL" "$@" | head -n -6; exit 0'}, DumpError, "no footer"),
            ({"pg_restore": '"$REAL" "$@" | sed "0,/^7\t/s//8\t/"'}, ProofError, "differ from the snapshot"),
            ({"pg_restore": "exit 0"}, DumpError, "no footer"),
            ({"pg_restore": "exit 1"}, DumpError, "pg_restore ended with exit status 1"),
            ({"psql": '"$REAL" "$@" | head -c 50000; exit 0'}, DumpError, "not whole"),
            ({"psql": '"$REAL" "$@"; exit 3'}, DumpError, "psql ended with exit status 3"),
            ({"psql": "cat > /dev/null; exit 0"}, DumpError, "not whole"),
            ({"psql": '"$REAL" "$@" | sed "0,/^7\t/s//8\t/"'}, ProofError, "differ from the snapshot"),
        ],
    )
    def test_what_they_did_is_found_out(
        self,
        scripts: dict[str, str],
        error: type[OpsproofError],
        words: str,
        wheel_postgres: PostgresServer,
        small: DatabaseAddress,
        tmp_path: Path,
        temporary: Path,
    ) -> None:
        with leaving_nothing(temporary), pytest.raises(error, match=words) as caught:
            self.run(wheel_postgres, small, tmp_path / "bin", **scripts)
        assert "no backup was written" in caught.value.kept
        assert caught.value.hint

    def test_roles_that_are_not_all_printed(
        self, wheel_postgres: PostgresServer, small: DatabaseAddress, tmp_path: Path
    ) -> None:
        for script in ('"$REAL" "$@" | head -n 5', '"$REAL" "$@"; exit 1'):
            folder = wrap_clients(tmp_path / f"bin{len(script)}", wheel_postgres.bindir, pg_dumpall=script)
            with pytest.raises(DumpError, match="pg_dumpall"):
                clients_of(wheel_postgres, small, folder).dump_roles()


def test_missing_programs_come_with_the_package_to_install(tmp_path: Path) -> None:
    with pytest.raises(ProgramMissing, match="pg_dump not found for PostgreSQL 18") as caught:
        find_client_programs(LOCAL, 18, str(tmp_path))
    assert "apt-get install postgresql-client-18" in caught.value.hint
    assert "pg_bindir" in caught.value.hint
    assert str(tmp_path) in caught.value.found


def test_one_missing_program_is_one_too_many(wheel_postgres: PostgresServer, tmp_path: Path) -> None:
    folder = wrap_clients(tmp_path / "bin", wheel_postgres.bindir)
    assert find_client_programs(LOCAL, 18, str(folder)).bindir == str(folder)
    (folder / "pg_restore").unlink()
    with pytest.raises(ProgramMissing):
        find_client_programs(LOCAL, 18, str(folder))


def test_a_folder_that_is_none_has_no_programs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProgramMissing):
        find_client_programs(LOCAL, 18, str(tmp_path / "file"))


def test_programs_of_another_major_are_named_and_not_used(
    system_postgres: PostgresServer, wheel_postgres: PostgresServer
) -> None:
    with pytest.raises(ProgramMissing, match="for PostgreSQL 18") as caught:
        find_client_programs(LOCAL, 18, str(system_postgres.bindir))
    assert "pg_dump (PostgreSQL) 1" in caught.value.found
    assert str(system_postgres.bindir) in caught.value.found


def test_debians_folder_of_the_servers_major_is_found_without_being_named(system_postgres: PostgresServer) -> None:
    if not system_postgres.bindir.is_relative_to(SYSTEM_VERSIONS):
        pytest.skip("the system's server is not where Debian has it")
    major = int(system_postgres.bindir.parent.name)
    programs = find_client_programs(LOCAL, major)
    assert programs.bindir == str(system_postgres.bindir)
    assert programs.version.startswith(f"{major}.")
