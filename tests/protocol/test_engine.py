"""What an engine that switches by itself says is the same after encoding and decoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.layouts import layouts
from trimtab.v1alpha1 import engine_service_pb2 as pb
from trimtab_protocol.engine import EngineCall, EngineSetup, SwitchedLayers
from trimtab_protocol.errors import MalformedError
from trimtab_protocol.messages import Report, Split, Topology
from trimtab_protocol.placement import Placement
from trimtab_protocol.wire import engine
from trimtab_protocol.wire.tensors import encode_tensor

UINT64 = st.integers(0, 2**64 - 1)


@st.composite
def calls(draw: st.DrawFn) -> EngineCall:
    placement = Placement.of(*draw(layouts()))
    layers, slots = placement.phy2log.shape
    topology = Topology(slots, placement.num_gpus, draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    setup = EngineSetup(
        draw(st.text(min_size=1, max_size=200)),
        draw(UINT64),
        topology,
        placement.num_experts,
        draw(UINT64),
        draw(st.text(max_size=200)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.booleans()),
        draw(st.sampled_from(Split)),
    )
    counts_LE = draw(
        arrays.arrays(
            "<i8", (layers, placement.num_experts), elements={"min_value": 0, "max_value": 2**40}
        )
    )
    step = draw(st.integers(0, 2**40))
    report = Report(draw(st.integers(1, 2**40)), step, step + 9, counts_LE, draw(st.booleans()))
    elements = {"min_value": 0, "max_value": 2**40}
    slot_counts_LR = draw(st.none() | arrays.arrays("<i8", (layers, slots), elements=elements))
    seconds = draw(st.none() | st.floats(0, 1e6))
    return EngineCall(setup, placement, report, seconds, slot_counts_LR)


def sent(message: Any) -> Any:
    """The message as it arrives at the other end."""
    return type(message).FromString(message.SerializeToString())


@given(calls())
def test_a_call_survives_the_wire(call: EngineCall) -> None:
    there = engine.decode_call(sent(engine.encode_call(call)))

    assert there.report._replace(counts_LE=None) == call.report._replace(counts_LE=None)
    assert there.report.counts_LE.tolist() == call.report.counts_LE.tolist()
    assert np.array_equal(there.slot_counts_LR, call.slot_counts_LR)
    assert (there.setup, there.placement, there.step_seconds) == (
        call.setup,
        call.placement,
        call.step_seconds,
    )


@given(st.sets(st.integers(0, 99), min_size=1), st.sampled_from(["<i4", "<i8"]))
def test_switched_layers_survive_the_wire(layers: set[int], dtype: str) -> None:
    rows_KR = np.arange(3 * len(layers), dtype=dtype).reshape(-1, 3)
    said = SwitchedLayers("d", 7, np.array(sorted(layers), np.int32), rows_KR)

    there = engine.decode_layers(sent(engine.encode_layers(said)))

    assert there[:2] == said[:2]
    assert there.layers_K.tolist() == sorted(layers)
    assert (there.phy2log_KR.dtype, there.phy2log_KR.tolist()) == (dtype, rows_KR.tolist())


def test_everything_wrong_with_a_call_is_named_at_once() -> None:
    with pytest.raises(MalformedError) as refused:
        engine.decode_call(pb.RebalanceRequest())

    fields = {violation.field for violation in refused.value.violations}
    assert fields == {"deployment", "placement", "report"}


@given(calls())
def test_counts_have_the_shape_of_the_placement(call: EngineCall) -> None:
    said = engine.encode_call(call)
    said.report.counts.CopyFrom(encode_tensor(np.zeros((9, 9), np.int64)))

    with pytest.raises(MalformedError, match=r"report\.counts\.shape: \[9, 9\] is not \[L, E\]"):
        engine.decode_call(said)


@given(calls())
def test_slots_have_the_shape_of_the_placement_and_no_negative_counts(call: EngineCall) -> None:
    said = engine.encode_call(call)
    said.slot_counts.CopyFrom(encode_tensor(np.zeros((9, 99), np.int64)))
    with pytest.raises(MalformedError, match=r"slot_counts\.shape: \[9, 99\] is not \[L, R\]"):
        engine.decode_call(said)
    below = np.full(call.placement.phy2log.shape, -1, np.int64)
    said.slot_counts.CopyFrom(encode_tensor(below))
    with pytest.raises(MalformedError, match="slot_counts: -1 is negative"):
        engine.decode_call(said)


def test_a_split_that_is_not_known_is_refused() -> None:
    with pytest.raises(MalformedError, match="split: 7 is not a known value"):
        engine.decode_call(pb.RebalanceRequest(deployment="d", split=7))


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_step_takes_a_finite_time(seconds: float) -> None:
    with pytest.raises(MalformedError, match=f"step_seconds: {seconds} is not a duration"):
        engine.decode_call(pb.RebalanceRequest(deployment="d", step_seconds=seconds))


@pytest.mark.parametrize(
    ("layers", "phy2log", "complaint"),
    [
        ([1, 1], [[0], [0]], "layers: do not ascend"),
        ([-1, 1], [[0], [0]], "layers: do not ascend"),
        ([1], [[0], [0]], "phy2log: 2 rows are not 1, one a layer"),
        ([1], [[0.0]], "phy2log: float64 is not an integer type"),
    ],
)
def test_layers_that_cannot_be_are_refused(layers: Any, phy2log: Any, complaint: str) -> None:
    said = pb.ReportLayersRequest(
        deployment="d", layers=encode_tensor(layers, "i4"), phy2log=encode_tensor(phy2log)
    )
    with pytest.raises(MalformedError, match=complaint):
        engine.decode_layers(said)
