"""What the objects of a backup are called in a store: its bundle, sealed or not, and its manifest beside it."""

from __future__ import annotations

SIDECAR = ".manifest.json"
# What is added to the name of an encrypted backup.
SEALED = ".age"
ENDINGS = (".zip", ".sql", ".zip" + SEALED, ".sql" + SEALED)


def sidecar_name(backup: str) -> str:
    """Return the name of the sidecar of a backup's id."""
    return backup + SIDECAR


def stem_of(name: str) -> str:
    """Return the id of a stored backup: its name without its ending. A name with no such ending is left as it is.

    >>> stem_of("prod_2026-01-31_02-00-00.zip.age"), stem_of("notes.txt")
    ('prod_2026-01-31_02-00-00', 'notes.txt')
    """
    ending = next((one for one in sorted(ENDINGS, key=len, reverse=True) if name.endswith(one)), "")
    return name.removesuffix(ending)
