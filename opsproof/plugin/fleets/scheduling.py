"""Which worker of pytest-xdist does what: a target's steps all go to one worker, in order, and to no other ever.

pytest-xdist's own schedulers hand out the next piece of work while the last test of the one before is still waiting to
be run, since a worker runs no test before it knows the next one; and they hand out a crashed worker's tests again. Here
a worker gets a *baton* behind a target's last step: that step once more, which the worker knows not to run. So it comes
to the end of a target, its undo included, without knowing what is next, and gets the next target when it is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # an extra: without -n nothing of it is loaded
    from xdist.workermanage import WorkerController


@dataclass
class Portion:
    """What one worker does in one go.

    Attributes:
        target: The target; empty for tests that are about none.
        indices: The places of its tests in the collection, in order.
        done: Those that were run, whatever came of them.
        begun: One of them has begun.
    """

    target: str
    indices: tuple[int, ...]
    done: set[int] = field(default_factory=set)
    begun: bool = False

    @property
    def is_done(self) -> bool:
        """All of its tests were run."""
        return self.done == set(self.indices)


class TargetScheduling:
    """A scheduler of pytest-xdist (its protocol `Scheduling`).

    Args:
        targets: For each collected test the target that it is about; empty for none.
        lose: Told of a portion that a worker had begun when it ended.
        disown: Told of a worker that has collected other tests than the first one.
    """

    def __init__(
        self,
        targets: Sequence[str],
        lose: Callable[[WorkerController, Portion], None],
        disown: Callable[[WorkerController], None],
    ) -> None:
        self._targets = targets
        self._lose = lose
        self._disown = disown
        self._collection: list[str] | None = None
        self._ready: set[WorkerController] = set()
        self._at_work: dict[WorkerController, Portion | None] = {}
        self._waiting: deque[Portion] = deque()
        self._is_stopped = False

    @property
    def nodes(self) -> list[WorkerController]:
        """The workers."""
        return list(self._at_work)

    @property
    def collection_is_completed(self) -> bool:
        """Whether work can be handed out: no worker has to wait for the others' collections."""
        return self._collection is not None

    @property
    def has_pending(self) -> bool:
        """Whether anything is still to be done."""
        return bool(self._waiting) or any(self._at_work.values())

    @property
    def tests_finished(self) -> bool:
        """Whether everything was done that will be done."""
        return (
            self.collection_is_completed and not any(self._at_work.values()) and (self._is_stopped or not self._waiting)
        )

    @property
    def targets_waiting(self) -> list[str]:
        """The targets that no worker has begun."""
        return [portion.target for portion in self._waiting if portion.target]

    @property
    def targets_at_work(self) -> list[str]:
        """The targets that a worker is at work on."""
        return [portion.target for portion in self._at_work.values() if portion is not None and portion.target]

    def nodeid(self, index: int) -> str:
        """Return the name of a test by its place."""
        return self._collection[index] if self._collection is not None else ""

    def stop(self) -> None:
        """Hand out nothing any more."""
        self._is_stopped = True

    def add_node(self, node: WorkerController) -> None:
        """Know a worker; it collects now."""
        self._at_work[node] = None

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Take what a worker has collected."""
        if self._collection is None:
            self._collection = list(collection)
            self._waiting.extend(self._portions())
        if list(collection) == self._collection:
            self._ready.add(node)
        else:
            self._disown(node)
            node.shutdown()

    def schedule(self) -> None:
        """Give every worker that is free something to do."""
        for node in self.nodes:
            if node in self._ready and self._at_work[node] is None:
                self._give(node)

    def mark_begun(self, nodeid: str) -> None:
        """Note that a test has begun."""
        for portion in self._at_work.values():
            if portion is not None and nodeid in map(self.nodeid, portion.indices):
                portion.begun = True

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """Note that a worker has come to the end of a test, its teardown included."""
        del duration
        portion = self._at_work.get(node)
        if portion is None or item_index not in portion.indices:
            return  # the baton
        portion.done.add(item_index)
        if portion.is_done:
            self._at_work[node] = None
            self._give(node)

    def remove_node(self, node: WorkerController) -> str | None:
        """Forget a worker that has ended; what it had begun is lost, and never begun again."""
        portion = self._at_work.pop(node)
        self._ready.discard(node)
        if portion is not None and not portion.begun:
            self._waiting.appendleft(portion)
        elif portion is not None:
            self._lose(node, portion)
        return None

    def mark_test_pending(self, item: str) -> None:
        """Of the protocol; nothing here is ever run again.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(f"{item} is not run again")

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> None:
        """Of the protocol; no worker is ever asked to give up what it has.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(f"{node} keeps {indices}")

    def _give(self, node: WorkerController) -> None:
        if node.shutting_down:
            return
        if self._is_stopped or not self._waiting:
            node.shutdown()
            return
        portion = self._waiting.popleft()
        try:
            node.send_runtest_some([*portion.indices, portion.indices[-1]])
        except OSError:
            # It has just ended, which is about to be told; it was sent nothing.
            self._waiting.appendleft(portion)
            return
        self._at_work[node] = portion

    def _portions(self) -> list[Portion]:
        places: dict[tuple[str, str], list[int]] = {}
        for index, target in enumerate(self._targets):
            # Tests of no target stay together by file, as they may share what is costly to set up.
            key = (target, "") if target else ("", self.nodeid(index).partition("::")[0])
            places.setdefault(key, []).append(index)
        return [Portion(target, tuple(indices)) for (target, _), indices in places.items()]
