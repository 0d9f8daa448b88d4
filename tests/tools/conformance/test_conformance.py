"""The kit passes a right engine, and finds the mistake of a wrong one in the case for it."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

from tests.tools.conformance import faults
from trimtab_client.exceptions import InvalidArgumentError
from trimtab_protocol.messages import Transfer
from trimtab_tools.conformance import CASES, Case, Owners, Shape, Verdict, check_engine, targets
from trimtab_tools.conformance.adapter import GroupSpec, MakeGroup
from trimtab_tools.conformance.inprocess import make_group
from trimtab_tools.conformance.reference import NumpyEngine

BY_NAME = {str(case): case for case in CASES}
SHORT = 1.0
"""Patience with an engine that blocks, in seconds."""


def groups_of(kind: type[NumpyEngine]) -> MakeGroup:
    return lambda spec: make_group(spec, kind)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_reference_is_right(case: Case) -> None:
    result = case.run(make_group)
    assert (result.verdict, result.message) == (Verdict.OK, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        Shape(layers=1, experts=3, slots=5, gpus=5, staging_slots=1, hidden=3),
        Shape(layers=2, experts=7, slots=21, gpus=3, staging_slots=3, hidden=4),
        Shape(layers=2, experts=6, slots=6, gpus=2, staging_slots=1),
        Shape(layers=1, experts=4, slots=6, gpus=1, staging_slots=1),
        Shape(layers=3, experts=12, slots=18, gpus=6, staging_slots=7),
    ],
    ids=str,
)
def test_the_reference_is_right_in_odd_shapes(
    shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Most time would go into searches for what a shape does not have. This is found as well.
    monkeypatch.setattr(targets, "_WALKS", 60)
    report = check_engine(make_group, shape, seed=1)
    assert report.ok, report.having(Verdict.FAILED)
    assert len(report.having(Verdict.OK)) > 20


def test_if_nothing_can_be_switched_all_cases_but_the_start_are_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(targets, "_WALKS", 1)
    report = check_engine(make_group, Shape(1, 1, 1, 1, 1, 1))
    names = [str(result.case) for result in report.having(Verdict.OK)]
    start = ("pull-start", "collective-start")
    assert names == [f"{case}-{owners}" for case in start for owners in ("each", "one")]
    assert len(report.having(Verdict.SKIPPED)) == len(CASES) - len(names)


FAULTS: list[tuple[type[NumpyEngine], str, str]] = [
    (faults.WritesLiveSlots, "prepare-each", "while 1.1 is being prepared|1.1 was prepared: .* as"),
    (faults.CopiesInOrder, "chain-each", "computes as expert"),
    (faults.CopiesInOrder, "hand-over-each", "computes as expert"),
    (faults.ForgetsCopies, "chain-each", "computes as expert"),
    (faults.CopiesOnlyWhatIsInForce, "fan-out-each", "computes as expert"),
    (faults.CopiesWhatIsReceived, "hand-over-each", "computes as expert"),
    (faults.ReadsEachSlotOnce, "fork-each", "computes as expert"),
    (faults.ForgetsTheLastLayersMaps, "layer-each", "layer 2, slot .*: routes to it for expert"),
    (faults.TakesRowsForLayers, "layer-each", "layer 0, slot .*: routes to it for expert"),
    (faults.MapsWithoutWeights, "swap-each", "computes as expert"),
    (faults.WeightsWithoutMaps, "swap-each", "routes to it for expert"),
    (faults.FlipsOnlyWhereSomethingArrives, "idle-each", "routes to it for expert"),
    (faults.AbortKeepsStaging, "abort-each", "cannot prepare .*pop from empty list"),
    (faults.FlipKeepsStaging, "switch-each", "cannot prepare .*pop from empty list"),
    (faults.FlipsToLeftovers, "leftover-each", "after .* flip.* to 1.2: layer .* computes as"),
    (faults.ReceivesOnce, "stale-each", "after .* flip.* to 1.2: layer .* computes as"),
    (faults.KnowsOneGpu, "swap-several", "computes as"),
    (faults.KnowsOneGpu, "swap-one", "computes as"),
    (faults.SharesItsMaps, "swap-each", "alone has flipped to 1.1: .* routes to it for"),
    (faults.LoadsTheDefault, "start-each", "computes as"),
    (faults.LoadsAnything, "start-each", "in a second group.*: computes as"),
    (faults.CannotCompute, "start-each", "OverflowError.'too hot'. .compute: layer 0, slot 0."),
    (faults.ComputesHalf, "start-each", "output of shape .3, 8., not .4, 8."),
    (faults.ComputesAlike, "start-each", "layer 0: experts 0 and 1 compute the same"),
    (faults.ShowsOwnSlotsOnly, "start-each", "phy2log has shape .3, 3., not .3, 12."),
    (faults.FailsInFlip, "swap-each", "the flip to 1.1: OSError"),
    (faults.Declines, "prepare-each", "rank 0 .GPU 0.: cannot prepare 1.1: the answer is False"),
]
PULL_FAULTS: list[tuple[type[NumpyEngine], str, str]] = [
    (faults.ReadsTheFirstSlot, "pull-swap-each", "computes as expert"),
    (faults.PullsAtTheFlip, "pull-swap-each", "after the flip to 1.1: .* computes as expert"),
    (faults.SaysPreparedAnyway, "pull-source-each", "flip.* to 1.1: .* computes as"),
    (faults.BlocksInOnOffer, "pull-prepare-each", "on_offer of 1.1 has not ended after 1 s"),
    (faults.NeverEndsATransfer, "pull-prepare-each", "the transfer of 1.1 has not ended"),
    # The check meant for the time of its transfer may come before the rank has begun it.
    (faults.StopsWhileItPrepares, "pull-prepare-each", "compute (while|after) .* has not ended"),
    (faults.PullsTogether, "pull-alone-each", "the transfer of 1.1 has not ended"),
    (faults.BlocksInClose, "pull-start-each", "close has not ended"),
    (faults.KeepsItsThread, "pull-close-each", "thread 'trimtab-reader_0' still runs"),
]
COLLECTIVE_FAULTS: list[tuple[type[NumpyEngine], str, str]] = [
    (faults.SendsNothing, "collective-swap-each", "computes as expert"),
    (faults.SendsToItsOwnSlots, "collective-swap-each", "computes as expert"),
    (faults.StaysAwayIfIdle, "collective-idle-each", "on_offer of 1.1 has not ended"),
    (faults.CollectiveFails, "collective-swap-each", "has not ended .*; rank 1 .GPU 1.: OSError"),
    (faults.AbortsOnlyWhatItKnows, "collective-unseen-each", "on_abort of 1.1: KeyError"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        *((kind, f"{t.value}-{name}", message) for kind, name, message in FAULTS for t in Transfer),
        *PULL_FAULTS,
        *COLLECTIVE_FAULTS,
    ],
)
def test_a_fault_is_found(kind: type[NumpyEngine], name: str, message: str) -> None:
    patience = SHORT if re.search("has not ended|still runs", message) else 60
    result = BY_NAME[name].run(groups_of(kind), patience=patience)
    assert result.verdict is Verdict.FAILED
    assert re.search(message, result.message), result.message


def test_all_cases_have_a_name_of_their_own_and_a_reason() -> None:
    assert len(BY_NAME) == len(CASES)
    assert all(case.reason for case in CASES)


def test_each_case_finds_some_fault() -> None:
    faulty = [name for _, name, _ in (*FAULTS, *PULL_FAULTS, *COLLECTIVE_FAULTS)]
    for case in CASES:
        assert any(name.endswith(f"{case.name}-each") for name in faulty), case
    swaps = {(case.transfer, case.owners) for case in CASES if case.name == "swap"}
    assert swaps == set(product(Transfer, Owners))


def test_groups_that_an_engine_does_not_have_are_skipped() -> None:
    def one_owner_only(spec: GroupSpec) -> list[NumpyEngine]:
        if len(spec.gpus) > 1:
            raise NotImplementedError("the driver owns all GPUs")
        return make_group(spec)

    report = check_engine(one_owner_only, transfers=[Transfer.PULL])

    assert report.ok
    names = {str(case) for case in CASES if case.transfer is Transfer.PULL}
    assert {str(r.case) for r in report.results} == names
    skipped = report.having(Verdict.SKIPPED)
    assert {str(r.case) for r in skipped} == {n for n in names if not n.endswith("one")}
    assert {r.message for r in skipped} == {
        "the engine has no such groups: the driver owns all GPUs"
    }


def test_a_group_that_cannot_be_made_is_a_failure() -> None:
    def fails(spec: GroupSpec) -> Sequence[NumpyEngine]:
        raise OSError("no device")

    def makes_one_too_few(spec: GroupSpec) -> Sequence[NumpyEngine]:
        return make_group(spec)[1:]

    released = threading.Event()

    def blocks(spec: GroupSpec) -> Sequence[NumpyEngine]:
        released.wait(faults.PATIENCE)
        return make_group(spec)

    case = BY_NAME["pull-start-each"]
    messages = [case.run(make, patience=0.1).message for make in (fails, makes_one_too_few, blocks)]
    released.set()
    assert messages == [
        "make_group failed: OSError('no device')",
        "make_group made 3 ranks, not 4",
        "make_group has not ended after 0.1 s",
    ]


def test_a_case_has_the_same_result_with_the_same_seed() -> None:
    case, make = BY_NAME["pull-swap-each"], groups_of(faults.MapsWithoutWeights)
    first, again, other = (case.run(make, seed=seed).message for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"gpus": 5}, "gpus"),
        ({"experts": 13}, "slots"),
        ({"layers": 0}, "layers"),
        ({"staging_slots": 1.5}, "staging_slots"),
    ],
)
def test_an_impossible_shape_is_refused(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{field}: "):
        Shape(**values)
