"""The versions that a release's modules say they have, held against those that a database has been brought to."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import PurePosixPath

from opsproof.system.hosts.host import Host

# Odoo's own, where a manifest has none.
_DEFAULT = "1.0"
# A NUL in a manifest would give the next module the rest of it.
_READ = 'cd -- "$0" || exit; for one; do tr -d "\\0" <"$one" || exit; printf "\\0"; done'


def read_versions(host: Host, release: PurePosixPath, manifests: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return the version of each module whose one manifest says it in so many words; of others nothing is known.

    Args:
        host: Where the release is.
        release: Its folder.
        manifests: Of the modules, as `odoomodules.manifests_of` has found them.

    Raises:
        HostError: One cannot be read.
    """
    known = {name: paths[0] for name, paths in manifests.items() if len(paths) == 1}
    if not known:
        return {}
    texts = host.run("sh", "-c", _READ, str(release), *known.values()).stdout.split("\0")
    versions = {name: _version_of(text) for name, text in zip(known, texts[:-1], strict=True)}
    return {name: version for name, version in versions.items() if version is not None}


def bare(version: str | None, series: str) -> str:
    """Return a module's version without Odoo's own before it, which Odoo adds where a manifest leaves it out."""
    return (version or "").removeprefix(f"{series}.")


def series_of(base: str | None) -> str:
    """Return Odoo's own version, as in 14.0, from that of its module `base`."""
    return ".".join((base or "").split(".")[:2])


def is_older(version: str, than: str) -> bool:
    """Tell whether a version comes before another; where they are not all numbers, nobody knows."""
    one, other = version.split("."), than.split(".")
    if not all(part.isascii() and part.isdigit() for part in (*one, *other)):
        return False
    return [int(part) for part in one] < [int(part) for part in other]


def _version_of(text: str) -> str | None:
    try:
        manifest = ast.literal_eval(text)
        return str(manifest.get("version", _DEFAULT))
    except (AttributeError, ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
