"""The relay: everything in order, errors told, and nobody waits for nobody."""

from __future__ import annotations

import threading

import pytest

from opsproof.archive.writing.conveyor import PIECE_BYTES, conveying
from opsproof.archive.writing.relay import PIECES_WAITING, Relay
from opsproof.errors import ArchiveError, StoreError


def test_everything_arrives_in_order_on_another_thread() -> None:
    taken, threads = [], set()

    def take(data: bytes) -> None:
        taken.append(data)
        threads.add(threading.get_ident())

    pieces = [bytes([number % 251]) * 100_000 for number in range(200)]
    with conveying(Relay(take)) as relay:
        for piece in pieces:
            relay.write(piece)
    assert b"".join(taken) == b"".join(pieces)
    assert threads.isdisjoint({threading.get_ident()})


def test_an_error_of_the_receiver_is_raised_by_a_later_write() -> None:
    def refuse(data: bytes) -> None:
        raise StoreError("the disk is full")

    relay = Relay(refuse)
    with pytest.raises(StoreError, match="the disk is full"):
        for _ in range(PIECES_WAITING * 3):
            relay.write(bytes(PIECE_BYTES))
    with pytest.raises(StoreError, match="the disk is full"):
        relay.finish()
    relay.abandon()


def test_an_error_on_the_last_piece_is_raised_by_finish() -> None:
    def refuse(data: bytes) -> None:
        raise StoreError("refused")

    relay = Relay(refuse)
    relay.write(b"less than a piece")
    with pytest.raises(StoreError, match="refused"):
        relay.finish()


def test_abandoning_stops_a_receiver_that_waits_and_drops_the_rest() -> None:
    begun, stopped, taken = threading.Event(), threading.Event(), []

    def wait(data: bytes) -> None:
        taken.append(data)
        begun.set()
        assert stopped.wait(20)

    relay = Relay(wait, stopped.set)
    for _ in range(10):
        relay.write(bytes(PIECE_BYTES))
    assert begun.wait(20)
    relay.abandon()
    assert len(taken) == 1
    with pytest.raises(ArchiveError, match="given up"):
        relay.write(bytes(PIECE_BYTES))
