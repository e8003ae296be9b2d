"""One supervisorctl that stays open: it takes a fifth of a second to start, which an outage need not pay several times.

It is the program's own interactive mode: it prompts, reads a command, and prints what it prints anyway.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from opsproof.errors import CommandTimeout, HostError
from opsproof.system.hosts.host import Host

PROMPT = b"supervisor> "


class SupervisorSession:
    """A supervisorctl that waits for commands.

    Args:
        host: Where it runs.
        command: How it is called.
        timeout: Seconds until it prompts for the first time.

    Raises:
        HostError: It does not start.
    """

    def __init__(self, host: Host, command: Sequence[str], timeout: float) -> None:
        self._pipe = host.pipe(*command, feed=True)
        try:
            self._read(timeout)
        except BaseException:
            self.close()
            raise

    def ask(self, *words: str, timeout: float) -> str:
        """Return what it says to a command.

        Raises:
            CommandTimeout: It did not answer in that many seconds; it was ended.
            HostError: It has ended.
        """
        self._pipe.write(f"{' '.join(words)}\n".encode())
        return self._read(timeout)

    def close(self) -> None:
        """End it."""
        with self._pipe:
            pass

    def _read(self, timeout: float) -> str:
        deadline, said = time.monotonic() + timeout, bytearray()
        while not said.endswith(PROMPT):
            left = deadline - time.monotonic()
            if left <= 0:
                raise CommandTimeout("supervisorctl did not answer", found=said.decode(errors="replace"))
            piece = self._pipe.read(stall=left)
            if not piece:
                raise HostError("supervisorctl has ended", found=said.decode(errors="replace") or self._pipe.stderr)
            said += piece
        return said.removesuffix(PROMPT).decode(errors="replace").strip()
