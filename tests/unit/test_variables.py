"""The database that DATABASE_URL, PG* or the application's own settings name."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import pytest

from opsproof.errors import CommandTimeout, ConfigurationError, ProgramMissing
from opsproof.inventory.application import read_setting
from opsproof.inventory.variables import database_of_environment, database_of_url, with_default_user

SECRET = "p@ss/w:o?r#d%é"
ENCODED = "p%40ss%2Fw%3Ao%3Fr%23d%25%C3%A9"


@pytest.mark.parametrize(
    "scheme",
    ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+asyncpg", "postgresql+psycopg", "POSTGRESQL"],
)
def test_every_spelling_of_the_scheme_is_the_same_database(scheme: str) -> None:
    address = database_of_url(f"{scheme}://us%20er:{ENCODED}@db.example:5433/my%20db", "x").address

    assert (address.name, address.host, address.port, address.user) == ("my db", "db.example", 5433, "us er")
    assert address.password is not None
    assert address.password.reveal() == SECRET
    assert address.parameters == {}


def test_a_socket_folder_is_a_host() -> None:
    address = database_of_url("postgresql:///app?host=/var/run/postgresql", "x").address

    assert (address.name, address.host, address.port) == ("app", "/var/run/postgresql", 5432)


def test_a_connection_string_of_words_is_read_as_well() -> None:
    address = database_of_url("host=db.example dbname=app password='a b'", "x").address

    assert (address.name, address.host) == ("app", "db.example")
    assert address.password is not None
    assert address.password.reveal() == "a b"


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("ssl=require", {"sslmode": "require"}),
        ("ssl=true", {"sslmode": "require"}),
        ("sslmode=verify-full&sslrootcert=/ca.pem", {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}),
        ("options=-c%20search_path%3Da", {"options": "-c search_path=a"}),
        ("prepared_statement_cache_size=0&schema=public", {}),
    ],
)
def test_parameters_are_libpqs_and_those_of_drivers_are_left_out(query: str, parameters: dict[str, str]) -> None:
    assert database_of_url(f"postgresql+asyncpg://u@h/d?{query}", "x").address.parameters == parameters


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@h/d",
        "postgresql://u:hush@hush@h/d",
        "postgresql://u:hush/hush@h/d",
        "postgresql://u:hush?hush@h/d",
        "postgresql://u:hush%zz@h/d",
        "postgresql://u:hush@h:hush/d",
        "postgresql://u:hush@h/d?hush",
        "postgresql://u:hush@h/d?ssl=hush",
        "host=h password='hush dbname=d",
        "hush",
        "mysql://u:hush@h/d",
        "password=hush://x dbname",
        "postgresql://u:hush@h/",
        "postgresql://u:hush@h1,h2/d",
        "postgresql://u@h/d?sslpassword=hush",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        database_of_url(url, "database_url in hosts.yml")
    assert caught.value.summary.startswith("database_url in hosts.yml ")
    assert caught.value.hint
    assert "hush" not in str(caught.value)
    assert "ss/w" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        database_of_url("postgresql://u@h/d?sslmod=require", "DATABASE_URL")
    assert caught.value.found == "sslmod"


def test_pg_variables_make_a_database_with_all_that_libpq_reads() -> None:
    named = database_of_environment(
        {
            "PGHOST": "db.example",
            "PGPORT": "5433",
            "PGDATABASE": "app",
            "PGUSER": "me",
            "PGPASSWORD": SECRET,
            "PGSSLMODE": "require",
            "PGPASSFILE": "/x/pgpass",
            "PGOPTIONS": "",
        }
    )

    assert named is not None
    address = named.address
    assert named.origin == "PGDATABASE"
    assert (address.name, address.host, address.port, address.user) == ("app", "db.example", 5433, "me")
    assert address.password is not None
    assert address.password.reveal() == SECRET
    assert address.parameters == {"sslmode": "require", "passfile": "/x/pgpass"}


def test_a_service_file_gives_what_its_section_says(tmp_path: Path) -> None:
    services = tmp_path / "services.conf"
    services.write_text("[live]\nhost=db.example\nport=5433\ndbname=app\npassword=hush\n")
    environ = {"PGSERVICE": "live", "PGSERVICEFILE": str(services), "PGHOST": "elsewhere"}

    named = database_of_environment(environ)

    assert named is not None
    assert named.origin == "PGSERVICE"
    assert (named.address.name, named.address.host, named.address.port) == ("app", "db.example", 5433)
    assert "service" not in named.address.parameters
    with pytest.raises(ConfigurationError, match="a connection service that is in no service file"):
        database_of_environment({**environ, "PGSERVICE": "dead"})


def test_no_variable_or_none_with_a_database_names_none() -> None:
    assert database_of_environment({}) is None
    assert database_of_environment({"PGHOST": "h", "PGPASSWORD": "x", "DATABASE_URL": " "}) is None


def test_the_url_is_filled_up_from_the_pg_variables() -> None:
    named = database_of_environment(
        {"DATABASE_URL": "postgresql://u@h/app", "PGPASSWORD": "x", "PGUSER": "other", "PGSSLMODE": "require"}
    )

    assert named is not None
    assert (named.origin, named.address.user, named.address.host) == ("DATABASE_URL", "u", "h")
    assert named.address.password is not None
    assert named.address.parameters == {"sslmode": "require"}


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("postgresql://localhost:5433/app", True),
        ("postgresql:///app", True),
        ("postgresql:///app?port=5433", True),
        ("postgresql://127.0.0.1/app", True),
        ("postgresql:///other", False),
        ("postgresql://elsewhere/app", False),
        ("postgresql://localhost:5434/app", False),
    ],
)
def test_url_and_pg_variables_may_not_name_different_databases(url: str, same: bool) -> None:
    environ = {"DATABASE_URL": url, "PGHOST": "localhost", "PGPORT": "5433", "PGDATABASE": "app"}
    if same:
        named = database_of_environment(environ)
        assert named is not None
        assert (named.address.name, named.address.port) == ("app", 5433)
        return
    with pytest.raises(ConfigurationError, match="name different databases") as caught:
        database_of_environment(environ)
    assert "by DATABASE_URL" in caught.value.found
    assert "by PGDATABASE" in caught.value.found


def test_the_default_user_is_the_one_of_the_process() -> None:
    named = with_default_user(database_of_url("postgresql:///app", "x"))

    assert named.address.user == pwd.getpwuid(os.geteuid()).pw_name
    assert with_default_user(database_of_url("postgresql://u@/app", "x")).address.user == "u"


SETTINGS = """
print("noise of the application")
class Text:
    def get_secret_value(self): return "postgresql://u:hush@h/secret"
class Url:
    def render_as_string(self, hide_password=True):
        return "postgresql://u:***@h/url" if hide_password else "postgresql://u:hush@h/url"
class Dsn:
    def __str__(self): return "postgresql://u:hush@h/dsn"
class Settings:
    plain = "postgresql://u:hush@h/plain"
    secret, url, dsn, empty, none = Text(), Url(), Dsn(), "", None
settings = Settings()
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    package = tmp_path / "app"
    package.mkdir()
    (package / "config.py").write_text(SETTINGS)
    (package / "broken.py").write_text("import os\nraise ValueError(f\"no {os.environ['APP_PASSWORD']}, sorry\")\n")
    (package / "sleepy.py").write_text("import time\ntime.sleep(60)\n")
    return tmp_path


@pytest.mark.parametrize("attribute", ["plain", "secret", "url", "dsn"])
def test_the_setting_is_read_whatever_its_type(application: Path, attribute: str) -> None:
    url = read_setting(f"app.config:settings.{attribute}", python=sys.executable, folder=application, environ={})

    assert url == f"postgresql://u:hush@h/{attribute}"


def test_the_environments_own_objects_are_read(application: Path) -> None:
    """Pydantic's DSN and secret, as FastAPI applications have them."""
    (application / "real.py").write_text(
        "from pydantic import PostgresDsn, SecretStr, TypeAdapter\n"
        "dsn = TypeAdapter(PostgresDsn).validate_python('postgresql+asyncpg://u:hu%40sh@h:5433/app')\n"
        "secret = SecretStr('postgresql://u:hush@h/app')\n"
    )

    urls = [
        read_setting(f"real:{name}", python=sys.executable, folder=application, environ={})
        for name in ("dsn", "secret")
    ]

    assert urls == ["postgresql+asyncpg://u:hu%40sh@h:5433/app", "postgresql://u:hush@h/app"]


@pytest.mark.parametrize("attribute", ["empty", "none"])
def test_a_setting_without_a_value_is_an_error(application: Path, attribute: str) -> None:
    with pytest.raises(ConfigurationError, match=r"There is no database URL in app\.config:settings"):
        read_setting(f"app.config:settings.{attribute}", python=sys.executable, folder=application, environ={})


def test_a_failing_import_shows_its_last_lines_without_secrets(application: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"settings cannot be read: app\.broken:x") as caught:
        read_setting("app.broken:x", python=sys.executable, folder=application, environ={"APP_PASSWORD": "hush5"})
    assert "ValueError: no ***, sorry" in caught.value.found
    assert "hush5" not in str(caught.value)


def test_what_is_not_there_is_named(application: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_setting("app.config:settings.nope", python=sys.executable, folder=application, environ={})
    assert "has no attribute 'nope'" in caught.value.found
    with pytest.raises(ConfigurationError, match="folder is not there"):
        read_setting("app.config:x", python=sys.executable, folder=application / "none", environ={})
    with pytest.raises(ProgramMissing, match="interpreter cannot be run"):
        read_setting("app.config:x", python="/nonexistent/python", folder=application, environ={})
    with pytest.raises(ConfigurationError, match="not a path to an attribute"):
        read_setting("app.config", python=sys.executable, folder=application, environ={})


def test_an_import_that_hangs_is_ended(application: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsproof.inventory.application._TIMEOUT", 0.5)
    with pytest.raises(CommandTimeout, match=r"Importing app\.sleepy did not end"):
        read_setting("app.sleepy:x", python=sys.executable, folder=application, environ={})
