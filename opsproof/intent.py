"""What a run is about to change, written down on the server, so that any machine can finish or undo it.

An intent stands in the comment of a database: the one thing of a database that its mere owner may write, that is part
of a transaction, and that nothing but people reads. (`ALTER DATABASE ... SET opsproof.intent` takes a superuser.) The
comment that was there before is kept inside, and comes back with the end of the intent. It is pure ASCII, as the
server's list of comments has no encoding of its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Literal, get_args

from opsproof.errors import DatabaseError

MARK = "opsproof.intent "

Stage = Literal["building", "built", "stopping", "migrating", "swapped", "kept", "in place"]


@dataclass(frozen=True)
class Intent:
    """What a run is at work on, and how far it has come.

    Attributes:
        procedure: What runs: `restore` or `rollback`.
        run: Random; tells one run from the next.
        environment: Whose target.
        target: The target's name.
        live: The database's own name.
        side: What the run builds.
        parked: What was live before; empty where there was nothing.
        backup: Id of the backup that is brought back.
        safety: Id of the safety backup, or empty.
        stage: `building` the side database; `built` and proven; `stopping`: services may be down, names are as they
            were; `migrating`: the same, while revisions are undone in the live database, of which `parked` is a copy;
            `swapped`: the names are changed, the checks have yet to pass; `kept`: finished, the parked database
            waits for a cleanup; `in place`: the live database is being written over.
        services: What the run stops, in their order.
        since: When the run began, ISO 8601 in UTC.
        by: `user@machine`.
        swap_xid: The swap's transaction, 64 bits wide; empty before it.
        options: Anything else.
    """

    procedure: str
    run: str
    environment: str
    target: str
    live: str
    side: str
    parked: str
    backup: str
    safety: str
    stage: Stage
    services: tuple[str, ...]
    since: str
    by: str
    swap_xid: str = ""
    options: dict[str, str] = field(default_factory=dict)

    @property
    def had_live(self) -> bool:
        """Tell whether a database was live when it began: it is parked, or in place it is in its safety backup."""
        return bool(self.parked or self.safety) or self.stage == "in place"

    def to_json(self) -> str:
        """Return it as one line of ASCII."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Intent:
        """Read what `to_json` wrote; what a newer version wrote besides is passed over.

        Raises:
            DatabaseError: It is something else.
        """
        try:
            found = json.loads(text)
        except ValueError as error:
            raise _unreadable(text) from error
        if not isinstance(found, dict):
            raise _unreadable(text)
        wanted = {one.name for one in fields(cls)}
        known = {name: value for name, value in found.items() if name in wanted}
        services, options = known.pop("services", None), known.pop("options", {})
        is_sound = (
            wanted - {"services", "options", "swap_xid"} <= set(known)
            and all(isinstance(value, str) for value in known.values())
            and known["stage"] in get_args(Stage)
            and isinstance(services, list)
            and all(isinstance(one, str) for one in services)
            and isinstance(options, dict)
            and all(isinstance(one, str) for one in options.values())
        )
        if not is_sound or not isinstance(services, list):
            raise _unreadable(text)
        return cls(**known, services=tuple(services), options=options)


def enclose(comment: str | None, intent: Intent) -> str:
    """Return the comment of a database that bears an intent, with its own comment inside."""
    return MARK + json.dumps({"intent": intent.to_json(), "comment": comment})


def disclose(comment: str | None) -> tuple[str | None, Intent | None]:
    """Return a database's own comment and its intent, from the comment that stands there.

    Raises:
        DatabaseError: It begins as an intent does and cannot be read.
    """
    if comment is None or not comment.startswith(MARK):
        return comment, None
    try:
        found = json.loads(comment.removeprefix(MARK))
    except ValueError as error:
        raise _unreadable(comment) from error
    own = found.get("comment", "") if isinstance(found, dict) else ""
    text = found.get("intent") if isinstance(found, dict) else None
    if not isinstance(text, str) or not (own is None or isinstance(own, str)):
        raise _unreadable(comment)
    return own, Intent.from_json(text)


def own_comment(comment: str | None) -> str | None:
    """Return what a database's comment is without any intent; as it stands where that cannot be read."""
    try:
        own, intent = disclose(comment)
    except DatabaseError:
        return comment
    return own if intent is None else own_comment(own)


def _unreadable(text: str) -> DatabaseError:
    return DatabaseError(
        "An intent of opsproof cannot be read",
        expected="the intent of a run, as JSON",
        found=text[:500],
        kept="nothing was changed",
    )
