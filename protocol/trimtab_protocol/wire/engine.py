"""What an engine that switches by itself says, as messages and back."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from trimtab.v1 import topology_pb2
from trimtab.v1alpha1 import engine_service_pb2 as pb
from trimtab_protocol.engine import EngineCall, EngineSetup, SwitchedLayers
from trimtab_protocol.errors import gather, require, require_all
from trimtab_protocol.messages import Report, Split
from trimtab_protocol.wire import requests, values
from trimtab_protocol.wire.requests import MAX_NAME
from trimtab_protocol.wire.tensors import decode_tensor, encode_tensor

_SPLITS = values.numbers_of(Split, pb.Split, "SPLIT")
_SPLIT_OF = {number: split for split, number in _SPLITS.items()} | {
    pb.SPLIT_UNSPECIFIED: Split.EVEN
}


def encode_call(call: EngineCall) -> pb.RebalanceRequest:
    """The request that asks for a placement."""
    said = call.setup._asdict()
    topology = topology_pb2.Topology(**vars(said.pop("topology")))
    counts_LR = call.slot_counts_LR
    return pb.RebalanceRequest(
        **said | {"split": _SPLITS[call.setup.split]},
        topology=topology,
        placement=values.encode_placement(call.placement),
        report=requests.encode_report(call.report).report,
        step_seconds=call.step_seconds,
        slot_counts=None if counts_LR is None else encode_tensor(counts_LR, np.int64),
    )


def decode_call(message: pb.RebalanceRequest) -> EngineCall:
    """What the request says.

    Whether the sizes of the topology fit each other is for the caller to check.
    """
    _, placement, report, counts_LR = gather(
        lambda: _require_name_and_numbers(message),
        lambda: requests.decode_placement(message, ""),
        lambda: _report(message),
        lambda: _slot_counts(message),
    )
    topology = values.decode_topology(message.topology)
    split = _SPLIT_OF[message.split]
    setup = values.value_of(EngineSetup, message, topology=topology, split=split)
    converted = {"setup": setup, "placement": placement, "report": report}
    return values.value_of(EngineCall, message, **converted, slot_counts_LR=counts_LR)


def _require_name_and_numbers(message: pb.RebalanceRequest) -> None:
    _require_name(message.deployment)
    length, seconds, split = len(message.model), message.step_seconds, message.split
    require_all(
        (split in _SPLIT_OF, "split", f"{split} is not a known value"),
        (length <= MAX_NAME, "model", f"{length} characters are more than {MAX_NAME}"),
        (0 <= seconds < math.inf, "step_seconds", f"{seconds} is not a duration"),
    )


def _report(message: pb.RebalanceRequest) -> Report:
    require(message.HasField("report"), "report", "is required")
    report = requests.decode_report(message.report)
    shape = list(report.counts_LE.shape)
    wanted = [*message.placement.phy2log.shape[:1], message.num_experts]
    require(shape == wanted, "report.counts.shape", f"{shape} is not [L, E] = {wanted}")
    return report


def _slot_counts(message: pb.RebalanceRequest) -> npt.NDArray[np.int64] | None:
    if not message.HasField("slot_counts"):
        return None
    counts_LR = decode_tensor(message.slot_counts, "slot_counts", rank=2, dtype="int64")
    shape, wanted = list(counts_LR.shape), list(message.placement.phy2log.shape)
    require(shape == wanted, "slot_counts.shape", f"{shape} is not [L, R] = {wanted}")
    require(int(counts_LR.min()) >= 0, "slot_counts", f"{counts_LR.min()} is negative")
    return counts_LR


def encode_layers(switched: SwitchedLayers) -> pb.ReportLayersRequest:
    """The request that reports switched layers."""
    return pb.ReportLayersRequest(
        deployment=switched.deployment,
        incarnation=switched.incarnation,
        layers=encode_tensor(switched.layers_K, np.int32),
        phy2log=encode_tensor(switched.phy2log_KR),
    )


def decode_layers(message: pb.ReportLayersRequest) -> SwitchedLayers:
    """What the request says. Whether the deployment has such layers is for the caller to check."""
    _, layers_K, phy2log_KR = gather(
        lambda: _require_name(message.deployment),
        lambda: decode_tensor(message.layers, "layers", rank=1, dtype="int32"),
        lambda: decode_tensor(message.phy2log, "phy2log", rank=2),
    )
    rows, kind = len(phy2log_KR), phy2log_KR.dtype
    require_all(
        (layers_K[0] >= 0 and bool((np.diff(layers_K) > 0).all()), "layers", "do not ascend"),
        (rows == len(layers_K), "phy2log", f"{rows} rows are not {len(layers_K)}, one a layer"),
        (kind.kind == "i", "phy2log", f"{kind} is not an integer type"),
    )
    return SwitchedLayers(message.deployment, message.incarnation, layers_K, phy2log_KR)


def _require_name(name: str) -> None:
    bounds = f"{name[:40]!r} does not have 1 to {MAX_NAME} characters"
    require(0 < len(name) <= MAX_NAME, "deployment", bounds)
