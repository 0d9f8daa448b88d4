"""The reference computes with the weights that its maps name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest

from trimtab_client import Flip, Placement, SwitchOffer, Version
from trimtab_protocol.messages import Transfer
from trimtab_tools.conformance.adapter import FloatArray, GroupSpec
from trimtab_tools.conformance.inprocess import checkpoint, make_group
from trimtab_tools.conformance.offers import Work
from trimtab_tools.conformance.reference import NumpyEngine, Place

HIDDEN = 8
GPUS = ((0,), (1,))
BASE = Placement.of([[0, 1, 2, 0], [2, 1, 0, 1]], 3, 2)
SWAPPED = Placement.of([[2, 1, 0, 0], [2, 1, 0, 1]], 3, 2)
EXPERTS_T = np.array([0, 1, 2, 0, 1, 2], np.int32)
TOKENS_TH = np.random.default_rng(0).standard_normal((6, HIDDEN)).astype(np.float32)


@pytest.fixture
def group() -> Iterator[list[NumpyEngine]]:
    ranks = make_group(GroupSpec(BASE, GPUS, Transfer.PULL, 2, HIDDEN))
    yield ranks
    for rank in ranks:
        rank.close()


def forward(rank: NumpyEngine, layer: int, group: list[NumpyEngine]) -> FloatArray:
    return rank.forward(layer, EXPERTS_T, TOKENS_TH, lambda gpu, *where: group[gpu].compute(*where))


def right(layer: int) -> FloatArray:
    pairs = zip(TOKENS_TH, EXPERTS_T.tolist(), strict=True)
    return np.stack([token @ checkpoint(layer, expert, HIDDEN) for token, expert in pairs])


def is_right(group: list[NumpyEngine]) -> bool:
    return all(
        np.allclose(forward(rank, layer, group), right(layer), atol=1e-5)
        for rank in group
        for layer in range(2)
    )


def test_a_token_is_computed_by_its_expert_on_any_gpu(group: list[NumpyEngine]) -> None:
    assert is_right(group)


def test_if_one_rank_alone_flips_results_are_wrong_until_all_have(
    group: list[NumpyEngine],
) -> None:
    rng = np.random.default_rng(0)
    offers = Work.between(BASE, SWAPPED).offers(GPUS, 2, Version(1, 0), Version(1, 1), rng)
    for rank, offer in zip(group, offers, strict=True):
        transfer = rank.on_offer(offer)
        assert transfer is not None
        transfer.result(60)
    assert is_right(group)

    group[0].flip(Flip(offers[0], 1))
    assert not is_right(group)
    group[1].flip(Flip(offers[1], 1))
    assert is_right(group)
    assert all(np.array_equal(rank.phy2log(), SWAPPED.phy2log) for rank in group)


def test_tokens_of_an_expert_take_turns_at_its_replicas(group: list[NumpyEngine]) -> None:
    rank = group[0]
    assert [rank.route(0, 0, turn) for turn in range(4)] == [0, 3, 0, 3]
    assert [rank.route(1, 1, turn) for turn in range(2)] == [1, 3]


class Wire:
    """A transport that records its calls, and returns what a test gives it."""

    def __init__(self, read: Callable[[int, int, int], FloatArray]) -> None:
        self.reads: list[tuple[int, int, int]] = []
        self.sent: Mapping[Place, FloatArray] = {}
        self._read = read

    def read(self, gpu: int, layer: int, slot: int) -> FloatArray:
        self.reads.append((gpu, layer, slot))
        return self._read(gpu, layer, slot)

    def exchange(self, sent: Mapping[Place, FloatArray]) -> Mapping[Place, FloatArray]:
        self.sent = sent
        return {(0, 0): checkpoint(0, 2, HIDDEN)}


FROM = Placement.of([[0, 1, 0, 2, 2, 1]], 3, 3)
TO = Placement.of([[2, 1, 0, 2, 0, 1]], 3, 3)


def rank_of(wire: Wire, transfer: Transfer = Transfer.PULL) -> tuple[NumpyEngine, SwitchOffer]:
    """The rank of GPU 0 of three; it has to receive expert 2, which the others hold."""
    work, rng = Work.between(FROM, TO), np.random.default_rng(3)
    offer, *_ = work.offers(((0,), (1,), (2,)), 1, Version(1, 0), Version(1, 1), rng)
    assert offer.receive_sources.tolist() == [[2, 1]]
    weights = partial(checkpoint, hidden=HIDDEN)
    return NumpyEngine((0,), FROM, weights, wire, transfer=transfer), offer


def test_if_a_source_fails_the_next_one_is_read() -> None:
    def read(gpu: int, layer: int, slot: int) -> FloatArray:
        if gpu == 2:
            raise ConnectionResetError("gone")
        return checkpoint(layer, 2, HIDDEN)

    wire = Wire(read)
    rank, offer = rank_of(wire)
    transfer: Any = rank.on_offer(offer)
    assert transfer.result(60) is None
    assert wire.reads == [(2, 0, 4), (1, 0, 3)]
    rank.flip(Flip(offer, 1))
    assert np.array_equal(rank.weights_in(0, 0), checkpoint(0, 2, HIDDEN))
    rank.close()


def test_if_all_sources_fail_the_transfer_fails_and_an_abort_frees_staging() -> None:
    answers: list[Any] = [OSError("first"), OSError("second"), checkpoint(0, 2, HIDDEN)]

    def read(*_: int) -> FloatArray:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    rank, offer = rank_of(Wire(read))
    transfer: Any = rank.on_offer(offer)
    assert str(transfer.exception(60)) == "second"
    rank.on_abort(offer)
    transfer = rank.on_offer(offer)
    assert transfer.result(60) is None
    rank.close()


def test_a_collective_transfer_sends_the_weights_of_the_offer() -> None:
    wire = Wire(lambda *_: pytest.fail("it reads"))
    rank, offer = rank_of(wire, Transfer.COLLECTIVE)
    assert offer.sends.tolist() == [[0, 0, 4, 0]]
    assert rank.on_offer(offer) is None
    assert list(wire.sent) == [(0, 4)]
    assert np.array_equal(wire.sent[0, 4], checkpoint(0, 0, HIDDEN))
    rank.close()


def test_a_closed_rank_gives_no_weights(group: list[NumpyEngine]) -> None:
    group[0].close()
    with pytest.raises(ConnectionError, match=r"the rank of GPUs \[0\] is closed"):
        group[0].weights_in(0, 0)
