"""Hooks: what is told of one that fails can be typed where something is, and shows no secret, cut or whole."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from opsproof.errors import CommandFailed, CommandTimeout
from opsproof.journal import Journal, Redactor
from opsproof.procedures.deploy.hooks import MOST_OUTPUT, Hooks
from opsproof.system.hosts.host import Host
from opsproof.target import Connection, DatabaseAddress, DeploySettings, DirectoryStoreSettings, Target

SECRET = "S3CRETVALUE"


def hooks_of(moment: str, command: str, timeout: float = 20.0) -> Hooks:
    """Return hooks whose journal knows a secret."""
    redactor = Redactor()
    redactor.add(SECRET)
    settings = DeploySettings(hook_timeout=timeout, hooks={moment: (command,)})
    address = DatabaseAddress("shop", "127.0.0.1", 1, "shop", None)
    target = Target("shop", "staging", address, DirectoryStoreSettings(Path()), "", deploy=settings)
    return Hooks(target, Host(Connection()), Journal(None, redactor))


@pytest.fixture
def release(tmp_path: Path) -> PurePosixPath:
    """A release below a folder with a blank in its name."""
    path = tmp_path / "my srv" / "releases" / "20260101000000"
    path.mkdir(parents=True)
    return PurePosixPath(path)


def test_a_hook_that_hangs_is_tried_again_where_something_is_left(release: PurePosixPath) -> None:
    """The release that it was run in is removed by then."""
    with pytest.raises(CommandTimeout) as caught:
        hooks_of("before_symlink", "sleep 20", 0.2).run("before_symlink", release, "20250101000000")
    assert caught.value.hint.startswith(f"cd '{release.parent.parent}/current' && sleep 20\n")
    with pytest.raises(CommandTimeout) as caught:
        hooks_of("before_symlink", "sleep 20", 0.2).run("before_symlink", release, "")
    assert "current" not in caught.value.hint


def test_a_hook_after_the_cleanup_does_not_say_that_anything_is_taken_back(release: PurePosixPath) -> None:
    with pytest.raises(CommandFailed) as caught:
        hooks_of("after_cleanup", "exit 3").run("after_cleanup", release, "20250101000000")
    assert caught.value.kept == "the release is live, and stays"
    assert f"'{release.parent.parent}/current' && exit 3" in caught.value.hint


def test_a_secret_that_is_cut_through_is_blotted_out_before(release: PurePosixPath) -> None:
    more = MOST_OUTPUT - 5
    command = f"printf '%s' {SECRET}; head -c {more} /dev/zero | tr '\\0' x"
    (ran,) = hooks_of("before_symlink", command).run("before_symlink", release, "")
    assert len(ran.output) <= MOST_OUTPUT
    assert SECRET[-5:] not in ran.output
