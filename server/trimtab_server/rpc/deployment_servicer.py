"""The methods of DeploymentService: decode, call, encode."""

from __future__ import annotations

import asyncio
from typing import Any

from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab.v1alpha1 import deployment_service_pb2_grpc, switch_pb2
from trimtab_server.domain.errors import FailedPreconditionError, require
from trimtab_server.domain.placement import Placement
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.planner import Planner, Terms
from trimtab_server.rpc.decode import decode_budget
from trimtab_server.rpc.encode import encode_placement
from trimtab_server.rpc.fields import PLACE_FIELDS, named_as
from trimtab_server.rpc.gate import Gate
from trimtab_server.rpc.tensors import decode_tensor

_MOST_CHARACTERS = 1000
"""Of a reason, which goes into the store, the log and each refusal."""


class DeploymentServicer(deployment_service_pb2_grpc.DeploymentServiceServicer):
    """Raises the server's own errors; the interceptor makes statuses of them."""

    def __init__(self, deployments: Deployments, planner: Planner, gate: Gate) -> None:
        self._deployments = deployments
        self._planner = planner
        self._gate = gate

    async def Trigger(  # noqa: N802
        self, request: pb.TriggerRequest, context: Any
    ) -> pb.TriggerResponse:
        """Switches to a placement that is given, or planned from the counts."""
        with self._gate.admitted(), named_as({**PLACE_FIELDS, "phy2log": "placement.phy2log"}):
            deployment = self._deployments.find(request.deployment)
            target = await self._target(request, deployment)
            await deployment.move_to(target)
            in_force, _ = deployment.rollout.record.served
            return pb.TriggerResponse(
                in_force=switch_pb2.Version(**in_force._asdict()),
                target=encode_placement(target),
            )

    async def Pause(  # noqa: N802
        self, request: pb.PauseRequest, context: Any
    ) -> pb.PauseResponse:
        """Offers nothing until Resume."""
        with self._gate.admitted():
            _require_reason(request.reason)
            deployment = self._deployments.find(request.deployment)
            before = await deployment.pause(request.reason)
            return pb.PauseResponse(previous_reason=before or "")

    async def Resume(  # noqa: N802
        self, request: pb.ResumeRequest, context: Any
    ) -> pb.ResumeResponse:
        """Allows offers again."""
        with self._gate.admitted():
            before = await self._deployments.resume(request.deployment)
            return pb.ResumeResponse(previous_reason=before or "")

    async def _target(self, request: pb.TriggerRequest, deployment: Deployment) -> Placement:
        facts = deployment.facts
        if request.HasField("placement"):
            require(not request.HasField("budget"), "budget", "has no meaning beside a placement")
            phy2log_LR = decode_tensor(request.placement.phy2log, "placement.phy2log")
            expected = [facts.num_layers, facts.topology.num_replicas]
            shape = list(phy2log_LR.shape)
            require(shape == expected, "placement.phy2log.shape", f"{shape} is not {expected}")
            experts, gpus = facts.num_experts, facts.topology.num_gpus
            return await asyncio.to_thread(Placement.of, phy2log_LR, experts, gpus)
        reason = deployment.rollout.why_not()
        load_LE = deployment.load()
        if reason is None and not load_LE.any():
            reason = "no worker has reported any load yet"
        if reason is not None:
            raise FailedPreconditionError(reason)
        budget = decode_budget(request.budget) if request.HasField("budget") else None
        _, served = deployment.rollout.record.served
        placed = await self._planner.place(load_LE, Terms(facts.topology, budget), served)
        return placed.placement


def _require_reason(reason: str) -> None:
    require(bool(reason.strip()), "reason", f"{reason!r} says nothing")
    length = len(reason)
    most = f"is not at most {_MOST_CHARACTERS}"
    require(length <= _MOST_CHARACTERS, "reason", f"its length, {length} characters, {most}")
