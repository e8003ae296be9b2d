"""The room that a restore takes: each disk that is too small is found, and what falls on one disk is added up."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from opsproof.archive.manifest import Member
from opsproof.inspection.restores.preflight import examine
from opsproof.inspection.restores.situation import Situation
from opsproof.target import FilestoreSettings
from tests.lab.situations import live, of_backup, of_manifest, situation, the_finding

__all__ = ["live", "situation"]


def test_a_database_that_does_not_fit(situation: Situation) -> None:
    finding = the_finding(of_manifest(situation, bytes=10**18), "room")
    assert f"{10**18:,} for the database in " in finding.expected
    assert the_finding(of_backup(situation, manifest=None, database_bytes=10**18), "room").blocks


def test_in_place_needs_room_for_the_difference_only(situation: Situation) -> None:
    assert situation.live is not None
    huge = replace(situation.live, bytes=10**18)
    assert examine(replace(of_manifest(situation, bytes=10**18), live=replace(huge, bytes=2))) != ()
    in_place = replace(of_manifest(situation, bytes=10**18), live=huge, in_place=True)
    assert "0 for the database" in the_finding(in_place, "room").expected


def test_files_need_room_unless_they_are_there(situation: Situation, tmp_path: Path) -> None:
    root = tmp_path / "filestore"
    (root / "ab").mkdir(parents=True)
    (root / "ab" / "abc").write_bytes(b"x")
    settings = FilestoreSettings(PurePosixPath(root), content_addressed=True, origin="odoo.conf")
    there = Member(path="ab/abc", bytes=10**18, sha256="")
    missing = Member(path="cd/cde", bytes=10**18, sha256="")
    with_files = replace(situation, target=replace(situation.target, filestore=settings))
    assert examine(of_backup(with_files, members=(there,))) == ()
    assert f"{10**18:,} for files in {root}" in the_finding(of_backup(with_files, members=(missing,)), "room").expected
    staged = replace(with_files, target=replace(situation.target, filestore=replace(settings, content_addressed=False)))
    assert the_finding(of_backup(staged, members=(there,), files_bytes=10**18), "room").blocks


def test_what_falls_on_one_disk_is_added_up(
    situation: Situation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = tmp_path / "not" / "there" / "yet"
    settings = FilestoreSettings(PurePosixPath(root), content_addressed=True, origin="odoo.conf")
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert situation.live is not None
    # Neither alone is too much: the spool is half of what is live.
    live = replace(situation.live, bytes=int(free * 1.2))
    member = Member(path="ab/abc", bytes=int(free * 0.6), sha256="")
    target = replace(situation.target, filestore=settings)
    with_files = of_backup(replace(situation, live=live, target=target), members=(member,))
    expected = the_finding(with_files, "room").expected
    assert "for the safety backup in" in expected
    assert f"for files in {tmp_path}" in expected


def test_a_server_elsewhere_has_a_disk_that_cannot_be_looked_at(situation: Situation) -> None:
    address = situation.target.database
    elsewhere = replace(address, host="db.example.com", parameters={"hostaddr": "127.0.0.1"})
    target = replace(situation.target, database=elsewhere)
    assert "cannot be looked at" in the_finding(replace(situation, target=target), "room", blocks=False).found
