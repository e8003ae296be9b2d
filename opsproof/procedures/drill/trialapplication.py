"""The application, started on a drill's scratch copy by the command that the inventory names, and ended with it."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from string import Formatter

from opsproof.errors import ConfigurationError, HostError, ProofError
from opsproof.inspection.health import wait_until_healthy
from opsproof.policies import DrillSettings
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.pipe import Pipe
from opsproof.system.hosts.web import Ask, asker_of
from opsproof.system.hosts.wrapped import ending
from opsproof.system.postgres.maintenance import maintenance
from opsproof.target import DatabaseAddress, Target

# Of the host: a port that is free now.
FREE_PORT = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
# What the command starts bears this variable, below whichever session it hides: by it all of that is found and ended.
MARK = "OPSPROOF_TRIAL"
# It reads its input until that ends, whoever ends it, SIGKILL too, and then ends what bears the mark: the application
# must not outlive the drill. What that prints goes where errors go, of which the last lines are kept.
GUARDED = (
    f'exec 3<&0; env "{MARK}=$2" sh -c "$1" </dev/null 3<&- 1>&2 & app=$!;'
    ' { trap "" TERM HUP INT; cat <&3; exec sh -c "$3" "$2"; } >/dev/null 2>&1 3<&3 &'
    ' exec 3<&-; wait "$app"'
)
ASK_SECONDS = 5.0
LAST_SECONDS = 5.0
# Of libpq's parameters those that have a variable, and that a driver needs to be let in.
PARAMETERS = ("sslmode", "sslrootcert", "sslcert", "sslkey")


@dataclass(frozen=True)
class Answered:
    """An application that answers: after how many seconds, and how many sessions the copy has then."""

    seconds: float
    sessions: int


def require_sensible(settings: DrillSettings) -> None:
    """Make sure that the command can be filled in, and that it names the copy.

    Raises:
        ConfigurationError: It names something that there is not, or does not name the copy; or there is no page to ask,
            or a page alone.
    """
    if bool(settings.command) != bool(settings.health_url):
        raise ConfigurationError(
            "drill.command and drill.health_url go together",
            expected="both: what is started has to answer; or neither",
            found="drill.command alone" if settings.command else "drill.health_url alone",
            kept="nothing was started",
            hint="drill: {command: 'odoo -d {database} --http-port={port}',"
            " health_url: 'http://127.0.0.1:{port}/web/login'}   in the inventory",
        )
    _filled(settings.command, "x", "x", 1)
    _filled(settings.health_url, "x", "x", 1)
    # An application that is not told takes the database of its own settings: the live one.
    if settings.command and "database" not in {field for _, field, _, _ in Formatter().parse(settings.command)}:
        raise ConfigurationError(
            "drill.command does not say which database the application is to use",
            expected="{database} in it: the drill's copy, and never the live one",
            found=settings.command,
            kept="nothing was started",
            hint="drill: {command: 'odoo -d {database} --http-port={port}'}, or 'PGDATABASE={database} ./serve {port}'",
        )


@contextmanager
def trial_application(target: Target, host: Host, settings: DrillSettings) -> Iterator[Answered]:
    """Start the application on a scratch copy, wait until it answers, and end it after the block.

    Args:
        target: The scratch copy, as a target.
        host: Where.
        settings: The command, and the page that has to answer.

    Raises:
        ConfigurationError: The command names something that there is not, or somebody else answers in its place.
        ProofError: It has ended, or does not answer in time.
        HostError: It cannot be started, or does not end.
    """
    port = int(host.run("python3", "-c", FREE_PORT).stdout)
    folder = str(target.filestore.path) if target.filestore else ""
    command = _filled(settings.command, target.database.name, folder, port)
    url = _filled(settings.health_url, target.database.name, folder, port)
    ask = asker_of(host, url)
    _require_silence(ask, url)
    runner = host.as_user(target.service_user or target.deploy_user or "")
    variables = {**_variables(target.database), "PORT": str(port)}
    token = secrets.token_hex(8)
    guard = ("sh", "-c", GUARDED, "opsproof", command, token, ending(token, MARK)[2])
    with runner.pipe(*guard, env=variables, feed=True) as application:

        def look() -> None:
            if not application.is_running:
                raise ProofError(
                    "The application ended by itself on the drill's copy",
                    expected=f"that it keeps running: {settings.command}",
                    found=application.stderr or "nothing was printed",
                    kept="what is live",
                    hint="run the drill's command by hand on a copy: drill.command in the inventory",
                )

        try:
            seconds = wait_until_healthy(url, settings.timeout.total_seconds(), look, ask=ask)
            look()
            yield Answered(seconds, _count_sessions(target.database))
        except ProofError as error:
            if application.stderr and application.stderr not in error.found:
                error.found = f"{error.found}\n{application.stderr}"
            raise
        finally:
            _end(runner, application, token)


def _require_silence(ask: Ask, url: str) -> None:
    answer = ask(url, ASK_SECONDS)
    if answer.is_healthy:
        raise ConfigurationError(
            f"{url} answers before the drill has started anything",
            expected="a page that only the application of the drill's copy answers: its port is {port}",
            found=f"HTTP {answer.status}",
            kept="nothing was started",
            hint="drill: {health_url: 'http://127.0.0.1:{port}/web/login'}   in the inventory",
        )


def _count_sessions(address: DatabaseAddress) -> int:
    with maintenance(address) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND usesysid IS NOT NULL", (address.name,)
        ).fetchone()
    return int(row[0]) if row else 0


def _end(runner: Host, application: Pipe, token: str) -> None:
    """End all of it, and return once nothing of it is left.

    Raises:
        HostError: Something does not end.
    """
    application.end_input()
    left = runner.run(*ending(token, MARK), timeout=60.0, accept=(0, 1)).status
    application.wait_until_ended(LAST_SECONDS)
    if left:
        raise HostError(
            "The application that the drill has started does not end",
            expected="that SIGKILL ends it",
            found=f"processes with {MARK}={token} in their environment",
            kept="what is live",
            hint=f"grep -l {MARK}={token} /proc/[0-9]*/environ   on the host, and end them",
        )


def _variables(address: DatabaseAddress) -> Mapping[str, str]:
    """Return libpq's variables for a database, as any application's driver reads them."""
    words = {
        "PGDATABASE": address.name,
        "PGHOST": address.host,
        "PGPORT": str(address.port),
        "PGUSER": address.user,
        "PGPASSWORD": address.password.reveal() if address.password else "",
        **{f"PG{name.upper()}": address.parameters.get(name, "") for name in PARAMETERS},
    }
    return {name: text for name, text in words.items() if text}


def _filled(text: str, database: str, filestore: str, port: int) -> str:
    words = {"database": shlex.quote(database), "filestore": shlex.quote(filestore), "port": str(port)}
    try:
        return text.format(**words)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            "The drill's command or page cannot be filled in",
            expected="{database}, {filestore} and {port}; {{ and }} for braces",
            found=f"{text}: {error}",
            kept="nothing was started",
            hint="correct drill.command or drill.health_url in the inventory",
        ) from error
