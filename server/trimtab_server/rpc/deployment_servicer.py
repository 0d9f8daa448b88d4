"""The methods of DeploymentService: decode, call, encode."""

from __future__ import annotations

import asyncio
from typing import Any

from trimtab.v1alpha1 import deployment_service_pb2, deployment_service_pb2_grpc, switch_pb2
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

Request = deployment_service_pb2.TriggerRequest


class DeploymentServicer(deployment_service_pb2_grpc.DeploymentServiceServicer):
    """Raises the server's own errors; the interceptor makes statuses of them."""

    def __init__(self, deployments: Deployments, planner: Planner, gate: Gate) -> None:
        self._deployments = deployments
        self._planner = planner
        self._gate = gate

    async def Trigger(  # noqa: N802
        self, request: Request, context: Any
    ) -> deployment_service_pb2.TriggerResponse:
        """Switches to a placement that is given, or planned from the counts."""
        with self._gate.admitted(), named_as({**PLACE_FIELDS, "phy2log": "placement.phy2log"}):
            deployment = self._deployments.find(request.deployment)
            target = await self._target(request, deployment)
            await deployment.move_to(target)
            in_force, _ = deployment.rollout.record.served
            return deployment_service_pb2.TriggerResponse(
                in_force=switch_pb2.Version(**in_force._asdict()),
                target=encode_placement(target),
            )

    async def _target(self, request: Request, deployment: Deployment) -> Placement:
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
