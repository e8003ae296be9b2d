"""The application, started on a drill's scratch copy by the command that the inventory names, and ended with it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opsproof.errors import ConfigurationError, ProofError
from opsproof.inspection.health import wait_until_healthy
from opsproof.policies import DrillSettings
from opsproof.system.host import Host
from opsproof.system.pipe import Pipe
from opsproof.system.web import asker_of
from opsproof.target import DatabaseAddress, Target

# Of the host: a port that is free now.
FREE_PORT = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
# It reads its input until that ends, whoever ends it, and then ends its own group: the application must not outlive the
# drill. What it prints goes where errors go, of which the last lines are kept.
GUARDED = (
    'exec 3<&0; sh -c "$1" </dev/null 3<&- 1>&2 & app=$!;'
    ' { trap "" TERM; cat <&3 >/dev/null; kill -TERM 0; sleep 5; kill -KILL 0; } >/dev/null 2>&1 3<&3 &'
    ' exec 3<&-; wait "$app"'
)


def require_sensible(settings: DrillSettings) -> None:
    """Make sure that the command can be filled in.

    Raises:
        ConfigurationError: It names something that there is not, or there is no page to ask, or a page alone.
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


@contextmanager
def trial_application(target: Target, host: Host, settings: DrillSettings) -> Iterator[float]:
    """Start the application on a scratch copy, wait until it answers, and end it after the block.

    Args:
        target: The scratch copy, as a target.
        host: Where.
        settings: The command, and the page that has to answer.

    Yields:
        The seconds until it was healthy.

    Raises:
        ConfigurationError: The command names something that there is not.
        ProofError: It has ended, or does not answer in time.
        HostError: It cannot be started.
    """
    port = int(host.run("python3", "-c", FREE_PORT).stdout)
    folder = str(target.filestore.path) if target.filestore else ""
    command = _filled(settings.command, target.database.name, folder, port)
    url = _filled(settings.health_url, target.database.name, folder, port)
    runner = host.as_user(target.service_user or target.deploy_user or "")
    variables = {**_variables(target.database), "OPSPROOF_DRILL": target.database.name, "PORT": str(port)}
    with runner.pipe("sh", "-c", GUARDED, "opsproof", command, env=variables, feed=True) as application:

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
            yield wait_until_healthy(url, settings.timeout.total_seconds(), look, ask=asker_of(host, url))
        except ProofError as error:
            if application.stderr and application.stderr not in error.found:
                error.found = f"{error.found}\n{application.stderr}"
            raise
        finally:
            _end(application)


def _end(application: Pipe) -> None:
    application.end_input()
    application.wait_until_ended(8.0)


def _variables(address: DatabaseAddress) -> Mapping[str, str]:
    """Return libpq's variables for a database, as any application's driver reads them."""
    words = {
        "PGDATABASE": address.name,
        "PGHOST": address.host,
        "PGPORT": str(address.port),
        "PGUSER": address.user,
        "PGPASSWORD": address.password.reveal() if address.password else "",
    }
    return {name: text for name, text in words.items() if text}


def _filled(text: str, database: str, filestore: str, port: int) -> str:
    words = {"database": shlex.quote(database), "filestore": shlex.quote(filestore), "port": str(port)}
    try:
        return text.format(**words)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigurationError(
            "The drill's command or page cannot be filled in",
            expected="{database}, {filestore} and {port}; {{ and }} for braces",
            found=f"{text}: {error}",
            kept="nothing was started",
            hint="correct drill.command or drill.health_url in the inventory",
        ) from error
