"""Who takes a backup: an account on a machine, and the CI job that it works for, where there is one."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping

from opsproof.archive.manifest import Author

# GitLab, GitHub, Jenkins and whatever follows their habits.
JOB_VARIABLES = ("CI_JOB_URL", "CI_JOB_ID", "BUILD_URL", "GITHUB_RUN_ID")
COMMIT_VARIABLES = ("CI_COMMIT_SHA", "GITHUB_SHA", "GIT_COMMIT")
PERSON_VARIABLES = ("GITLAB_USER_LOGIN", "GITHUB_ACTOR", "BUILD_USER_ID")


def find_author(environ: Mapping[str, str]) -> Author:
    """Return who runs this process, from its variables and its account."""
    try:
        account = getpass.getuser()
    except (KeyError, OSError):
        account = "unknown"  # an account without a name, as containers have them
    return Author(
        user=_first(environ, PERSON_VARIABLES) or account,
        machine=socket.gethostname(),
        job=_first(environ, JOB_VARIABLES),
        commit=_first(environ, COMMIT_VARIABLES),
    )


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)
