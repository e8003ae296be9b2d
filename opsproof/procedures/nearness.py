"""What this version does only on the host itself: it runs the application's own Alembic where it stands."""

from __future__ import annotations

from opsproof.errors import HostError
from opsproof.target import Target


def require_near(target: Target, verb: str) -> None:
    """Refuse to change a host from another machine.

    Args:
        target: What would be changed.
        verb: What is not done from here: `rolls schemas back`.

    Raises:
        HostError: The inventory reaches its host from another machine.
    """
    one = target.connection
    if one.kind != "local":
        raise HostError(
            f"{target.name} is on {one.host}: this version {verb} only on the host itself",
            expected="ansible_connection: local",
            found=f"ansible_connection: {one.kind}",
            kept="nothing was changed, and nothing was asked of the host",
            hint=f"run pytest on {one.host}, with `ansible_connection: local` in the inventory there; backups, and the"
            " restores, work from here",
        )
