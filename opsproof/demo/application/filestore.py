"""The application's attachments on disk: each named by the SHA-1 of its content, written once, never changed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from .settings import Settings


def write_file(settings: Settings, content: bytes) -> str:
    """Write a content, unless it is there, and return its name below the filestore.

    The file appears whole or not at all: it is written in data_dir, outside the filestore, and renamed into it. As in
    Odoo, a marker in `checklist/` tells the clean-up to look later whether a row names it. The filestore itself is
    never made here: one that was moved away would be begun anew, empty, and nobody would notice.

    Raises:
        FileNotFoundError: There is no filestore.
    """
    name = file_name(content)
    target = settings.filestore / name
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        incoming = settings.data_dir / "incoming"
        incoming.mkdir(exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=incoming)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(temporary, target)  # noqa: PTH105 - mkstemp gives a text
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        mark_for_cleanup(settings, name)
    return name


def read_file(settings: Settings, name: str) -> bytes:
    """Return a file's content.

    Raises:
        FileNotFoundError: There is none of that name.
    """
    return (settings.filestore / name).read_bytes()


def file_name(content: bytes) -> str:
    """Return `{sha1[:2]}/{sha1}`."""
    digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    return f"{digest[:2]}/{digest}"


def mark_for_cleanup(settings: Settings, name: str) -> None:
    """Leave the empty marker by which the daily clean-up finds files that no row may name any more."""
    marker = settings.filestore / "checklist" / name
    marker.parent.parent.mkdir(exist_ok=True)
    marker.parent.mkdir(exist_ok=True)
    marker.touch()
