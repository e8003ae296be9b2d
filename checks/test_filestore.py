"""The application's files: each that the database names is there, with its size; with --deep its content, too."""

from __future__ import annotations

from opsproof.inspection.attachments import check_attachments
from opsproof.plugin.checking import Note
from opsproof.plugin.run import Run
from opsproof.system.files.filestore import Filestore
from opsproof.system.postgres.server import Connection


class TestFilestore:
    """What a database needs of its filestore."""

    def test_attachments_are_there(self, db: Connection, filestore: Filestore, run: Run, note: Note) -> None:
        """No file is missing, and none is cut short; with --deep each is read. Files that no row names are counted."""
        found = check_attachments(db, filestore, deep=run.options.deep)
        note("attachments", f"{found.named:,} named, {found.files:,} files of {found.bytes:,} bytes")
        note("orphans", found.orphans)
        if run.options.deep:
            note("read", found.read)
        if found.faults:
            note("accepted", f"{len(found.faults):,} missing or damaged, as the inventory accepts: {found.faults[0]}")
