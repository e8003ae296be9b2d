"""What a release can do besides: each module `addon_*` beside this one adds pages, and a check to /health."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .records import Records


class BadRequest(Exception):
    """The client sent something that the application does not take."""


@dataclass(frozen=True)
class Answer:
    """What a page answers: HTML, or a value that becomes JSON."""

    content: object
    status: int = 200

    @property
    def is_html(self) -> bool:
        """Tell whether it is for people."""
        return isinstance(self.content, str)


Page = Callable[[Records, bytes], Answer]


@dataclass(frozen=True)
class Addon:
    """One addon.

    Attributes:
        get: Its pages that are read, by the first part of their path.
        post: Its pages that are written to.
        check: Raises psycopg's errors where the database is not as the addon needs it.
    """

    get: Mapping[str, Page] = field(default_factory=dict)
    post: Mapping[str, Page] = field(default_factory=dict)
    check: Callable[[Records], None] = lambda _: None


def find_addons(folder: str) -> list[Addon]:
    """Return the addons of a release: those in the folder of this package."""
    names = sorted(one.name for one in pkgutil.iter_modules([folder]) if one.name.startswith("addon_"))
    return [importlib.import_module(f"{__package__}.{name}").ADDON for name in names]
