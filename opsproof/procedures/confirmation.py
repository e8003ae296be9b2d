"""A protected environment wants its target named before anything changes."""

from __future__ import annotations

from collections.abc import Callable

from opsproof.errors import ConfigurationError
from opsproof.target import Target


def require_confirmation(target: Target, confirmed: bool, plan: Callable[[], list[str]], also: str = "") -> None:
    """Let nobody change a protected environment by accident.

    Args:
        target: What would be changed.
        confirmed: It was named.
        plan: What would be done, a line each.
        also: What the command has to say besides.

    Raises:
        ConfigurationError: The environment is protected, and the target was not named.
    """
    if target.protected and not confirmed:
        raise ConfigurationError(
            f"{target.environment} is protected: nothing was done",
            expected=f"--confirm={target.name}, once you have read the plan",
            found="\n".join(f"{number}. {line}" for number, line in enumerate(plan(), 1)),
            kept="everything",
            hint=f"the same command with --confirm={target.name} {also}".rstrip(),
        )
