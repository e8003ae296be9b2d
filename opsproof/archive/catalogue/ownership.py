"""Whose a backup is: nobody gets another's data unless it was asked for by name."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from opsproof.archive.manifest import Manifest
from opsproof.errors import ConfigurationError
from opsproof.target import Target


@dataclass(frozen=True)
class Owner:
    """Whose backups count.

    `database` is None where a copy of another target was asked for: that target's database may have had any name.
    """

    environment: str
    target: str
    customer: str
    database: str | None

    @property
    def label(self) -> str:
        """Return `environment/target`, as `--from` takes it."""
        return f"{self.environment}/{self.target}"

    def owns(self, manifest: Manifest) -> bool:
        """Tell whether a backup is this owner's."""
        return (
            (manifest.environment, manifest.target, manifest.customer) == (self.environment, self.target, self.customer)
        ) and self.database in (None, manifest.database.name)

    def describe_other(self, manifest: Manifest) -> str:
        """Return whose another's backup is, as far as it is not this owner's."""
        words = [label_of(manifest)]
        if manifest.customer != self.customer:
            words.append(f"customer {printable(manifest.customer) or 'none'}")
        if self.database not in (None, manifest.database.name):
            words.append(f"database {printable(manifest.database.name)}")
        return ", ".join(words)

    def way_to(self, manifest: Manifest) -> str:
        """Return what to type so that another's backup is taken all the same."""
        words = f"--from={shlex.quote(label_of(manifest))}"
        if manifest.customer == self.customer:
            return words
        customer = printable(manifest.customer)
        return f"{words}   with `customer: {customer}` for that target" if customer else f"{words}   without a customer"


def owner_of(target: Target, source: Target | None = None) -> Owner:
    """Return whose backups a restore of `target` may take: its own, or with `--from` those of `source`."""
    if source is not None:
        return Owner(source.environment, source.name, source.customer, None)
    return Owner(target.environment, target.name, target.customer, target.database.name)


def require_owned(manifest: Manifest, owner: Owner) -> None:
    """Refuse a backup of somebody else.

    Raises:
        ConfigurationError: It is one; the hint says what to type to take it all the same.
    """
    if not owner.owns(manifest):
        raise ConfigurationError(
            f"{printable(manifest.id)} is not a backup of {owner.label}",
            expected=f"a backup of {_full(owner)}",
            found=f"one of {owner.describe_other(manifest)}",
            kept="nothing was changed",
            hint=f"to take it all the same: {owner.way_to(manifest)}",
        )


def label_of(manifest: Manifest) -> str:
    """Return `environment/target` of a backup."""
    return printable(f"{manifest.environment}/{manifest.target}")


def printable(text: str) -> str:
    """Return a text of somebody's manifest without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _full(owner: Owner) -> str:
    database = f", database {owner.database}" if owner.database else ""
    return f"{owner.label}, customer {owner.customer or 'none'}{database}"
