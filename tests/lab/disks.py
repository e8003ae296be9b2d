"""Small disks, to fill them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount a disk of `size` bytes over a folder for as long as the block lasts; tell whether this account could."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, timeout=20)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            # A service that works in there may be ended only after this.
            subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)
