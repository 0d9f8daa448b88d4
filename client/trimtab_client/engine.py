"""For engines that switch by themselves: Trimtab plans, and the engine moves the weights.

Legend for all shapes: L layers, E logical experts, R expert slots, K layers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from trimtab.v1alpha1 import engine_service_pb2 as pb
from trimtab_client.arrays import as_indices
from trimtab_client.calling import ClientBase, T, awaited
from trimtab_client.checks import integer, named, one_of, real, text
from trimtab_client.exceptions import invalid
from trimtab_client.options import Topology
from trimtab_client.placement import Placement
from trimtab_client.policies import Decision
from trimtab_client.wire_deployments import decision_value
from trimtab_client.wire_values import checked_placement, uint32, version_value
from trimtab_client.worker.counters import Counters
from trimtab_client.worker.options import check_placement
from trimtab_protocol.engine import EngineCall, EngineSetup, SwitchedLayers
from trimtab_protocol.messages import Split
from trimtab_protocol.version import Version
from trimtab_protocol.wire.engine import encode_call, encode_layers
from trimtab_protocol.wire.values import optional

_UINT64_MAX = 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What an engine that switches by itself says of itself.

    Attributes:
        deployment: name of the model instance. The first call creates the deployment.
        topology: the engine's slots, GPUs, nodes and groups.
        bytes_per_expert: size of the weights of one expert in one layer.
        incarnation: rises with each start of the process. 0 for the nanoseconds since 1970.
        model: name of the model, for people; may be empty.
        first_layer: the first of the model's MoE layers that belongs to the deployment: each
            pipeline stage is a deployment of its own.
        observes: whether the engine only reports, and switches as its own policy says. Then
            Trimtab decides as in shadow mode.
        split: how the engine divides the tokens of an expert over its replicas. Balance is
            predicted accordingly, so that nothing moves for what the best split evens out.

    Raises:
        InvalidArgumentError: a value is out of its range.
    """

    deployment: str
    topology: Topology
    bytes_per_expert: int
    incarnation: int = 0
    model: str = ""
    first_layer: int = 0
    observes: bool = False
    split: Split = Split.EVEN

    def __post_init__(self) -> None:
        named(self.deployment, "deployment")
        text(self.model, "model")
        integer(self.bytes_per_expert, "bytes_per_expert", 1, _UINT64_MAX)
        uint32(self.first_layer, "first_layer")
        integer(self.incarnation, "incarnation", 0, _UINT64_MAX)
        object.__setattr__(self, "split", one_of(Split, self.split, "split"))
        object.__setattr__(self, "incarnation", self.incarnation or time.time_ns())


@dataclass(frozen=True, eq=False)
class EngineAnswer:
    """What an engine is told: to switch to a placement, or to keep the one in force.

    Attributes:
        in_force: version of the placement in force.
        placement: the placement to switch to; None to keep the one in force.
        version: its version; None to keep the one in force.
        moves: net moves to it.
        decision: the decision of the policy, with the imbalance before and after; None if the
            policy was not asked, for example because the deployment is pinned.
        kept_because: why the engine keeps its placement, for people; empty if it does not.
    """

    in_force: Version
    placement: Placement | None
    version: Version | None
    moves: int
    decision: Decision | None
    kept_because: str


class _SessionBase:
    """What both kinds of sessions share: the counts, and how a call is made of them."""

    def __init__(self, client: ClientBase, options: EngineOptions) -> None:
        self.options = options
        self._client = client
        topology = options.topology
        self._gpus = range(topology.num_gpus)
        self._counters: Counters | None = None
        self._placement: Placement | None = None
        self._steps = 0
        self._called_at: float | None = None

    def forget_load(self) -> None:
        """Let the next call say that none of the load so far was traffic, but a warm-up."""
        if self._counters is not None:
            self._counters.forget()

    def _call(
        self, method: str, request: Any, decode: Callable[[Any], T], timeout: float | None
    ) -> T:
        client = self._client
        # Of the same package: what is private is so to those who use a client.
        return client._call(getattr(client._engine, method), request, decode, timeout)  # noqa: SLF001

    def _request(
        self,
        counts: npt.ArrayLike,
        placement: Placement,
        steps: SupportsIndex,
        per_slot: bool,
        step_seconds: float | None,
    ) -> pb.RebalanceRequest:
        check_placement(placement, self.options.topology)
        number = integer(steps, "steps", low=1)
        counters = self._counters_for(placement)
        counters.record(counts, self._steps, self._steps + number - 1, per_slot=per_slot)
        self._steps += number
        now, before = time.monotonic(), self._called_at
        if step_seconds is None and before is not None:
            step_seconds = (now - before) / number
        self._called_at = now
        setup = EngineSetup(**vars(self.options), num_experts=placement.num_experts)
        seconds = None if step_seconds is None else real(step_seconds, "step_seconds")
        # The report has the load of experts; how replicas shared it is told beside it.
        slot_counts_LR = as_indices(counts, "counts") if per_slot else None
        report = counters.snapshot()
        return encode_call(EngineCall(setup, placement, report, seconds, slot_counts_LR))

    def _counters_for(self, placement: Placement) -> Counters:
        """The counters, where slots are those of this placement."""
        before, self._placement = self._placement, placement
        if self._counters is None or before is None:
            self._counters = Counters(placement, self._gpus)
        elif before.logcnt.shape != placement.logcnt.shape:
            self._placement = before
            shape, known = placement.logcnt.shape, before.logcnt.shape
            raise invalid("placement", f"(layers, experts) {shape} are not {known}, as before")
        elif before != placement:
            self._counters.flipped(placement, self._gpus, self._steps)
        return self._counters

    def _answer(
        self, seq: int, placement: Placement, response: pb.RebalanceResponse
    ) -> EngineAnswer:
        if self._counters is not None:
            self._counters.acknowledged(seq)
        target, sizes = None, (placement.num_experts, placement.num_gpus)
        if response.HasField("placement"):
            target = checked_placement(response.placement, *sizes)
        return EngineAnswer(
            in_force=version_value(response.in_force),
            placement=target,
            version=optional(response, "version", version_value),
            moves=response.moves,
            decision=optional(response, "decision", decision_value),
            kept_because=response.kept_because,
        )


class EngineSession(_SessionBase):
    """One process of an engine that speaks for the whole expert-parallel group.

    A call that fails loses nothing: the next one reports its counts too. No call is made but in
    `rebalance` and `report_layers`, on the caller's thread. The sessions of several models may
    share a client.

        session = EngineSession(client, EngineOptions(...))
        answer = session.rebalance(counts, placement, steps)
        if answer.placement is not None:
            ...  # switch, on all ranks, and give that placement to the next call

    Args:
        client: makes the calls. Its retries end within the timeout of a call.
        options: the deployment and its shape.
    """

    def rebalance(
        self,
        counts: npt.ArrayLike,
        placement: Placement,
        steps: SupportsIndex,
        *,
        per_slot: bool = False,
        step_seconds: float | None = None,
        timeout: float | None = None,
    ) -> EngineAnswer:
        """Report the load since the last call, and ask which placement to switch to.

        Args:
            counts: int [L, E], the tokens that all ranks together have routed to each expert since
                the last call. With `per_slot` [L, R], those that each slot has processed.
            placement: the placement in force, whoever planned it.
            steps: number of steps since the last call, at least 1.
            per_slot: whether `counts` has slots of `placement`. If so, the server also learns how
                the replicas of an expert share its tokens, and predicts balance accordingly.
            step_seconds: mean duration of these steps; None for the time since the last call
                divided by their number, which is unknown at the first call.
            timeout: in seconds; None for the client's, `math.inf` for no limit.

        Raises:
            InvalidArgumentError: an argument does not fit the others, or the earlier calls.
            FailedPreconditionError: the deployment is of another shape, or a newer process of this
                engine calls for it.
        """
        request = self._request(counts, placement, steps, per_slot, step_seconds)
        decode = partial(self._answer, request.report.seq, placement)
        return self._call("Rebalance", request, decode, timeout)

    def report_layers(
        self,
        layers: npt.ArrayLike,
        phy2log: npt.ArrayLike,
        *,
        timeout: float | None = None,
    ) -> Version:
        """Report layers that the engine has switched. Not required: the next call tells too.

        Args:
            layers: int [K], ascending.
            phy2log: int [K, R], the logical expert in each physical slot of them.
            timeout: in seconds; None for the client's, `math.inf` for no limit.

        Returns:
            The version in force: the new one once all of its layers have been reported.

        Raises:
            FailedPreconditionError: `rebalance` has not been called.
        """
        layers_K = as_indices(np.atleast_2d(np.asarray(layers)), "layers")[0]
        rows_KR = as_indices(phy2log, "phy2log")
        setup = self.options
        said = SwitchedLayers(setup.deployment, setup.incarnation, layers_K, rows_KR)
        return self._call("ReportLayers", encode_layers(said), _version, timeout)


class AsyncEngineSession(_SessionBase):
    """`EngineSession` for asyncio, with an `AsyncClient`: the same calls, awaited."""

    rebalance = awaited(EngineSession.rebalance)
    report_layers = awaited(EngineSession.report_layers)


def _version(response: pb.ReportLayersResponse) -> Version:
    return version_value(response.in_force)
