"""Odoo's modules among the files of a release: what they are called, where they are, and whether they differ."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from opsproof.system.releases.package import PackedFile

MANIFESTS = ("__manifest__.py", "__openerp__.py")


def manifests_of(files: Mapping[str, PackedFile]) -> dict[str, tuple[str, ...]]:
    """Return Odoo's modules among the files of a release, by name, and the manifests of each: it may be there twice.

    Odoo calls a module as its folder is called, or as the link that leads there.
    """
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(files):
        place = PurePosixPath(path)
        if place.name in MANIFESTS and place.parent.name:
            found[place.parent.name] = (*found.get(place.parent.name, ()), path)
    for link, folder in _links_to_modules(files, _folders(files)):
        name = posixpath.basename(link)
        if name != posixpath.basename(folder):
            own = next(one for one in MANIFESTS if f"{folder}/{one}" in files)
            found[name] = (*found.get(name, ()), f"{link}/{own}")
    return found


def modules_of(files: Mapping[str, PackedFile]) -> dict[str, str]:
    """Return Odoo's modules among the files of a release, and a digest of each: of every file that is in it."""
    folders = _folders(files)
    inside: dict[str, list[tuple[str, str, str]]] = {folder: [] for folder in folders}
    for path, one in files.items():
        parts = path.split("/")
        if "__pycache__" in parts:
            continue
        above = ""
        for part in parts[:-1]:
            above = f"{above}/{part}" if above else part
            if above in inside:
                inside[above].append((path[len(above) + 1 :], one.sha256, one.link or ""))
    found: dict[str, list[object]] = {}
    for folder in sorted(folders):
        # Two folders may have one of the same name, of which addons_path chooses one: any change of either counts.
        found.setdefault(posixpath.basename(folder), []).append(sorted(inside[folder]))
    for link, folder in _links_to_modules(files, folders):
        found.setdefault(posixpath.basename(link), []).append((link, folder, sorted(inside[folder])))
    return {
        name: hashlib.sha256(repr(listings).encode("utf-8", "surrogateescape")).hexdigest()
        for name, listings in found.items()
    }


def _folders(files: Mapping[str, PackedFile]) -> frozenset[str]:
    paths = (PurePosixPath(path) for path in files)
    return frozenset(str(path.parent) for path in paths if path.name in MANIFESTS and path.parent.name)


def _links_to_modules(files: Mapping[str, PackedFile], folders: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield the links that lead to a module's folder in the same release, and that folder."""
    for path, one in sorted(files.items()):
        if one.link:
            leads_to = posixpath.normpath(posixpath.join(posixpath.dirname(path), one.link))
            if leads_to in folders:
                yield path, leads_to
