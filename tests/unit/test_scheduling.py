"""Which worker gets which target: one each, in order, never twice, and the next one only to a worker that is free."""

from __future__ import annotations

from typing import Any

from opsproof.plugin.fleets.scheduling import Portion, TargetScheduling

# Two steps for each of three targets, as pytest orders them, and a test of no target.
TARGETS = ["a", "a", "b", "b", "", "c", "c"]
NAMES = ["x::S::one[a]", "x::S::two[a]", "x::S::one[b]", "x::S::two[b]", "y::other", "x::S::one[c]", "x::S::two[c]"]


class Worker:
    """Stands in for pytest-xdist's own side of a worker."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.shutting_down = False
        self.is_gone = False

    def send_runtest_some(self, indices: list[int]) -> None:
        if self.is_gone:
            raise OSError("cannot send")
        self.sent.append(indices)

    def shutdown(self) -> None:
        self.shutting_down = True


class Ground:
    """A scheduler with two workers that have collected."""

    def __init__(self) -> None:
        self.lost: list[tuple[Any, Portion]] = []
        self.disowned: list[Any] = []
        self.scheduling = TargetScheduling(TARGETS, lambda *lost: self.lost.append(lost), self.disowned.append)
        self.workers = [Worker(), Worker()]
        for worker in self.workers:
            self.join(worker)
        self.scheduling.schedule()

    def join(self, worker: Any, names: list[str] | None = None) -> None:
        self.scheduling.add_node(worker)
        self.scheduling.add_node_collection(worker, names or NAMES)

    def do(self, worker: Any, *indices: int) -> None:
        for index in indices:
            self.scheduling.mark_begun(NAMES[index])
            self.scheduling.mark_test_complete(worker, index)


def test_a_worker_gets_the_steps_of_one_target_and_the_baton() -> None:
    first, second = Ground().workers
    assert first.sent == [[0, 1, 1]]
    assert second.sent == [[2, 3, 3]]


def test_the_next_target_goes_to_the_worker_that_is_free() -> None:
    ground = Ground()
    first, second = ground.workers
    ground.do(second, 2)
    assert len(second.sent) == 1, "it is not free before its last step is done"
    ground.do(second, 3)
    assert second.sent[1:] == [[4, 4]]
    ground.do(second, 3, 4)  # the baton, and then the new one
    assert second.sent[2:] == [[5, 6, 6]]
    assert len(first.sent) == 1
    assert ground.scheduling.targets_at_work == ["a", "c"]
    assert not ground.scheduling.tests_finished


def test_a_worker_leaves_when_nothing_waits_and_all_is_done_at_the_end() -> None:
    ground = Ground()
    first, second = ground.workers
    ground.do(first, 0, 1, 4)
    ground.do(second, 2, 3)
    assert (first.shutting_down, second.shutting_down) == (False, True)
    ground.do(first, 5, 6)
    assert first.shutting_down
    assert ground.scheduling.tests_finished
    assert not ground.scheduling.has_pending


def test_what_a_worker_had_begun_when_it_ended_is_lost_and_never_sent_again() -> None:
    ground = Ground()
    first, second = ground.workers
    ground.do(first, 0)
    assert ground.scheduling.remove_node(first) is None
    assert [(worker, portion.target, portion.done) for worker, portion in ground.lost] == [(first, "a", {0})]
    third = Worker()
    ground.join(third)
    ground.scheduling.schedule()
    ground.do(third, 4, 5, 6)
    ground.do(second, 2, 3)
    assert sorted(index for worker in (second, third) for sent in worker.sent for index in set(sent)) == [2, 3, 4, 5, 6]
    assert ground.scheduling.tests_finished


def test_what_a_worker_had_not_begun_is_another_ones() -> None:
    ground = Ground()
    first, second = ground.workers
    ground.scheduling.remove_node(first)
    assert ground.lost == []
    ground.do(second, 2, 3)
    assert second.sent[-1] == [0, 1, 1]


def test_a_worker_that_cannot_be_told_is_given_nothing() -> None:
    ground = Ground()
    first, second = ground.workers
    first.is_gone = True
    ground.do(first, 0, 1)
    ground.scheduling.remove_node(first)
    assert ground.lost == []
    ground.do(second, 2, 3, 4, 5, 6)
    assert second.sent[1:] == [[4, 4], [5, 6, 6]]
    assert ground.scheduling.tests_finished


def test_nothing_is_handed_out_any_more_after_a_stop() -> None:
    ground = Ground()
    first, second = ground.workers
    ground.scheduling.stop()
    ground.do(first, 0, 1)
    assert (len(first.sent), first.shutting_down) == (1, True)
    assert not ground.scheduling.tests_finished, "the other one is at work"
    ground.do(second, 2, 3)
    assert ground.scheduling.tests_finished
    assert ground.scheduling.targets_waiting == ["c"]


def test_a_worker_that_has_collected_something_else_is_sent_away() -> None:
    ground = Ground()
    stranger = Worker()
    ground.join(stranger, NAMES[:-1])
    ground.scheduling.schedule()
    assert (ground.disowned, stranger.sent, stranger.shutting_down) == ([stranger], [], True)
