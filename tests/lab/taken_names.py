"""What every store does with a name that is taken: the object that has it stays, and the other is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from opsproof.errors import ObjectExists
from opsproof.system.store import Store


def require_taken_name_refused(store: Store) -> None:
    """Check that a name which is taken before anything begins is refused, to large and small objects."""
    store.put_small("app.zip", b"the first")
    with pytest.raises(ObjectExists, match=r"app\.zip is in the store already"):
        store.upload("app.zip", 10)
    with pytest.raises(ObjectExists):
        store.put_small("app.zip", b"the second")
    assert store.get_small("app.zip") == b"the first"


def require_faster_one_kept(store: Store, slower: bytes, before_commit: Callable[[], object] = lambda: None) -> None:
    """Check that an upload does not overwrite what took its name meanwhile.

    Args:
        store: Which.
        slower: What is uploaded.
        before_commit: Called once the name is taken.
    """
    with store.upload("app.zip", len(slower)) as upload:
        upload.write(slower)
        store.put_small("app.zip", b"the faster")
        before_commit()
        with pytest.raises(ObjectExists):
            upload.commit()
    assert store.get_small("app.zip") == b"the faster"
