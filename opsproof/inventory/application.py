"""The database URL of an application's own settings, read by its own interpreter.

Its code is imported in a process of its own: it may need other versions of libraries than this tool, and it may print.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from opsproof.errors import CommandTimeout, ConfigurationError, ProgramMissing

_TIMEOUT = 60.0
_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
# Whatever the application prints goes to stderr; the answer alone goes out. Runs on any Python 3.
_SCRIPT = """
import importlib, json, os, sys
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.path.insert(0, os.getcwd())
module, _, attributes = sys.argv[1].partition(":")
value = importlib.import_module(module)
for attribute in attributes.split("."):
    value = getattr(value, attribute)
if hasattr(value, "get_secret_value"):
    value = value.get_secret_value()
if hasattr(value, "render_as_string"):
    value = value.render_as_string(hide_password=False)
json.dump(str(value) if value is not None else None, answer)
answer.close()
"""
_USERINFO = re.compile(r"://[^\s'\"]*@")
_INPUT = re.compile(r"input_value=.*?(?=, input_type=|\\]|$)")
_TELLING = re.compile(r"PASS|SECRET|TOKEN|KEY|URL|DSN|CREDENTIAL", re.IGNORECASE)


def read_setting(setting: str, *, python: str, folder: Path, environ: Mapping[str, str]) -> str:
    """Return the database URL that an application has in its settings.

    Args:
        setting: `module.path:attribute.attribute`.
        python: The application's interpreter.
        folder: The application's working directory, where its modules and its `.env` are.
        environ: The application's environment.

    Raises:
        ConfigurationError: The path is no such path, the import fails, or there is no text at its end.
        ProgramMissing: There is no such interpreter.
        CommandTimeout: The import did not end within a minute.
    """
    if not _PATH.fullmatch(setting):
        raise ConfigurationError(
            "settings is not a path to an attribute",
            expected="module.path:attribute.attribute",
            found=repr(setting),
            hint="for example app.core.config:settings.DATABASE_URL",
        )
    if not folder.is_dir():
        raise ConfigurationError(
            f"The application's folder is not there: {folder}",
            expected="the folder from which the application's modules are imported",
            found="no such folder",
            hint="correct settings_path",
        )
    try:
        done = subprocess.run(
            [python, "-c", _SCRIPT, setting],
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise ProgramMissing(
            f"The application's interpreter cannot be run: {python}",
            expected="a Python that has the application's dependencies",
            found=error.strerror or type(error).__name__,
            hint="correct settings_python, for example /srv/app/venv/bin/python",
        ) from error
    except subprocess.TimeoutExpired:
        raise CommandTimeout(
            f"Importing {setting.partition(':')[0]} did not end within {_TIMEOUT:.0f} s",
            expected="an import of the application's settings",
            found="it is still running: does the module start the application, or connect to something?",
            hint=f"time it: cd {folder} && {python} -X importtime -c 'import {setting.partition(':')[0]}'",
        ) from None
    if done.returncode != 0:
        raise ConfigurationError(
            f"The application's settings cannot be read: {setting}",
            expected=f"an import by {python} in {folder}",
            found="\n".join(_redacted(done.stderr, environ).strip().splitlines()[-4:])
            or f"exit {done.returncode}, and no word why",
            hint="correct settings, settings_python (its interpreter) or settings_path (its folder)",
        )
    return _url_of(done.stdout, setting)


def _url_of(answer: str, setting: str) -> str:
    try:
        value = json.loads(answer)
    except ValueError:
        value = None
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(
            f"There is no database URL in {setting}",
            expected="a text, a pydantic DSN or secret, or a SQLAlchemy URL",
            found="nothing" if value is None else "an empty text",
            hint="set what the application reads it from, or correct the path",
        )
    return value


def _redacted(text: str, environ: Mapping[str, str]) -> str:
    """Return a traceback without passwords: validation errors like to quote what they were given."""
    secrets = {value for name, value in environ.items() if _TELLING.search(name) and len(value) >= 4}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _INPUT.sub("input_value=***", _USERINFO.sub("://***@", text))
