"""A copy is neutralized by Odoo's own statements where it has any, and by the built-in ones where it has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsproof.errors import CommandFailed, ProgramMissing
from opsproof.target import DatabaseAddress
from tests.lab.odoo_tables import UUID, acting, parameters
from tests.lab.postgres_server import PostgresServer
from tests.lab.side_odoo import Side, neutralize, side, target_for

__all__ = ["side"]

OWN = """#!/bin/sh
printf '%s ' "$@" >> "{log}"
echo 'a warning' >&2
echo 'BEGIN;'
cat <<'END'
DO $$
    BEGIN
        UPDATE ir_mail_server SET active = false;
    END;
$$;
-- 100% of them but one, as Odoo does
UPDATE ir_cron SET active = false WHERE cron_name <> 'autovacuum';
UPDATE payment_acquirer SET state = 'disabled';
CREATE TABLE said_by_odoo ();
END
echo 'COMMIT;'
"""


def of_version(server: PostgresServer, address: DatabaseAddress, version: str) -> None:
    with server.connect(address.name) as connection:
        connection.execute("UPDATE public.ir_module_module SET latest_version = %s WHERE name = 'base'", (version,))


def script(folder: Path, text: str) -> str:
    path = folder / "odoo"
    path.write_text(text.replace("{log}", str(folder / "said")))
    path.chmod(0o755)
    return str(path)


def test_odoo_16_says_itself_what_is_to_be_done(side: Side, tmp_path: Path) -> None:
    server, address = side
    of_version(server, address, "16.0.1.3")
    target = target_for(address, tmp_path, odoo_bin=script(tmp_path, OWN), odoo_conf="/etc/odoo/odoo.conf")
    done = neutralize(address, target)
    assert (tmp_path / "said").read_text() == f"neutralize --stdout -d {address.name} -c /etc/odoo/odoo.conf "
    with server.connect(address.name) as connection:
        assert connection.execute("SELECT to_regclass('public.said_by_odoo') IS NOT NULL").fetchone() == (True,)
        found = acting(connection)
        # Odoo's own leave one scheduled action on, and add a mail server; here both are held to the same rule.
        assert {"ir_mail_server invalid"} == {line for line in found if line.startswith(("ir_cron", "ir_mail"))}
        assert "delivery_carrier production" in found
    assert "by Odoo's own statements" in done.shown


@pytest.mark.parametrize(
    ("version", "changes", "why"),
    [
        ("15.0.1.3", {"odoo_bin": "{odoo}"}, "Odoo 15.0.1.3 has none"),
        ("16.0.1.3", {"odoo_bin": "none"}, "`odoo_bin: none`"),
        ("saas~17.2.1.3", {}, "no odoo on the host's PATH"),
        ("16.0.1.3", {"odoo_bin": "{old}"}, "is older than 16"),
    ],
)
def test_the_built_in_statements_are_taken_where_odoo_has_none(
    side: Side, tmp_path: Path, version: str, changes: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, address = side
    of_version(server, address, version)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    program = script(
        tmp_path,
        OWN if changes.get("odoo_bin") == "{odoo}" else "#!/bin/sh\necho \"Unknown command 'n'\" >&2\nexit 1\n",
    )
    known = {key: program if value.startswith("{") else value for key, value in changes.items()}
    done = neutralize(address, target_for(address, tmp_path, **known))
    assert why in done.by
    with server.connect(address.name) as connection:
        assert acting(connection) == ["ir_mail_server invalid"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("#!/bin/sh\necho 'BEGIN;'\necho 'addons path not found' >&2\nexit 1\n", "addons path not found"),
        ("#!/bin/sh\necho 'BEGIN;'\necho 'UPDATE ir_cron SET active = false;'\n", "nothing on stderr"),
        ("#!/bin/sh\necho 'BEGIN;'\necho 'COMMIT;'\n", "nothing on stderr"),
    ],
    ids=["fails", "is cut", "says nothing"],
)
def test_an_odoo_that_does_not_say_it_is_an_error(side: Side, tmp_path: Path, text: str, found: str) -> None:
    server, address = side
    of_version(server, address, "16.0.1.3")
    with pytest.raises(CommandFailed, match="does not say how to neutralize") as caught:
        neutralize(address, target_for(address, tmp_path, odoo_bin=script(tmp_path, text)))
    assert found in caught.value.found
    assert "odoo_bin: none" in caught.value.hint
    with server.connect(address.name) as connection:
        assert parameters(connection)["database.uuid"] == UUID


def test_an_odoo_that_the_inventory_names_has_to_be_there(side: Side, tmp_path: Path) -> None:
    server, address = side
    of_version(server, address, "16.0.1.3")
    with pytest.raises(ProgramMissing):
        neutralize(address, target_for(address, tmp_path, odoo_bin=str(tmp_path / "nowhere")))
