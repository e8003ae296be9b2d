"""What is said where the lab cannot run: no lab is needed to prove it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opsproof.errors import HostError, ProgramMissing
from tests.lab import debian_base
from tests.lab.debian_base import DebianBase, find_base, lab_folder, require_lab
from tests.lab.lent_hosts import refuse


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(HostError) as caught:
        require_lab()

    assert caught.value.found == "uid 1000"


def test_without_its_programs_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "ip").touch(mode=0o755)

    with pytest.raises(ProgramMissing) as caught:
        require_lab()

    packages = "mmdebstrap openssh-client systemd-container"
    assert caught.value.hint == f"apt-get install --no-install-recommends {packages}"


def test_it_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.skip.Exception, match="the lab needs root"):
        refuse(HostError("the lab needs root"))


def test_in_ci_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="the lab needs root"):
        refuse(HostError("the lab needs root"))


def test_folder_is_the_variable_s_or_the_cache_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OPSPROOF_LAB_DIR", raising=False)
    assert lab_folder() == tmp_path / "cache/opsproof-lab"

    monkeypatch.setenv("OPSPROOF_LAB_DIR", str(tmp_path / "lab"))
    assert lab_folder() == tmp_path / "lab"
    assert (tmp_path / "lab").stat().st_mode & 0o777 == 0o700


def test_base_is_built_anew_for_another_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = []

    def build(base: DebianBase) -> None:
        base.folder.mkdir()
        (base.folder / "built").touch()
        built.append(base)

    monkeypatch.setenv("OPSPROOF_LAB_DIR", str(tmp_path))
    monkeypatch.setattr(debian_base, "require_lab", lambda: None)
    monkeypatch.setattr(debian_base, "_build", build)
    first = find_base()
    assert find_base() == first
    monkeypatch.setattr(debian_base, "PACKAGES", ("one",))
    second = find_base()
    assert not first.folder.exists()  # no host lies on it
    (tmp_path / "hosts/erp").mkdir(parents=True)
    (tmp_path / "hosts/erp/base").write_text(second.folder.name)
    monkeypatch.setattr(debian_base, "PACKAGES", ("two",))
    third = find_base()

    assert built == [first, second, third]
    assert second.folder.exists()
    assert third.folder.exists()
