"""What releases share: a release leads to it, and never takes anything of it along."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsproof.errors import ProofError
from opsproof.system.releases.layout import Releases
from opsproof.system.releases.sharing import share
from tests.lab.releasing import releases

__all__ = ["releases"]
NAME = "20260101000000"


@pytest.fixture
def release(releases: Releases) -> Path:
    """A release that is uploaded, beside invoices that people have uploaded."""
    invoices = Path(releases.shared) / "data" / "uploads"
    invoices.mkdir(parents=True)
    (invoices / "invoice.pdf").write_text("precious")
    path = Path(releases.path(NAME))
    path.mkdir(parents=True)
    return path


def precious(releases: Releases) -> str:
    return (Path(releases.shared) / "data" / "uploads" / "invoice.pdf").read_text()


def test_what_the_release_has_there_gives_way(releases: Releases, release: Path) -> None:
    (release / "data" / "uploads").mkdir(parents=True)
    (release / "data" / "uploads" / "sample.pdf").write_text("a sample")
    share(releases, NAME, "data/uploads/")
    assert (release / "data" / "uploads" / "invoice.pdf").read_text() == "precious"
    assert precious(releases) == "precious"


def test_a_link_of_the_release_above_a_shared_path_takes_nothing_away(releases: Releases, release: Path) -> None:
    (release / "data").symlink_to(Path("..", "..", "shared", "data"))
    with pytest.raises(ProofError, match="leads out of the release"):
        share(releases, NAME, "data/uploads")
    assert precious(releases) == "precious"


def test_a_link_of_the_release_to_anywhere_takes_nothing_away(
    releases: Releases, release: Path, tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "app.conf").write_text("somebody's")
    (release / "config").symlink_to(tmp_path / "etc")
    with pytest.raises(ProofError, match="leads out of the release"):
        share(releases, NAME, "config/app.conf")
    assert (tmp_path / "etc" / "app.conf").read_text() == "somebody's"


def test_a_path_below_one_that_is_shared_already_is_refused(releases: Releases, release: Path) -> None:
    share(releases, NAME, "data")
    with pytest.raises(ProofError, match="leads out of the release"):
        share(releases, NAME, "data/uploads/")
    assert precious(releases) == "precious"


def test_a_link_that_stays_in_the_release_is_followed(releases: Releases, release: Path) -> None:
    (release / "var" / "logs").mkdir(parents=True)
    (release / "data").symlink_to("var")
    share(releases, NAME, "data/logs/")
    assert (release / "var" / "logs").readlink() == Path(releases.shared) / "data" / "logs"
