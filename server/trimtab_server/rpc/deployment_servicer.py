"""The methods of DeploymentService: decode, call, encode."""

# ruff: noqa: N802 - gRPC names the methods

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab.v1alpha1 import deployment_service_pb2_grpc
from trimtab_protocol.operations import OperationKind as Kind
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_protocol.wire.values import encode_placement
from trimtab_server.domain.errors import FailedPreconditionError, NotFoundError, require
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.operations import Operations
from trimtab_server.engine.plan_request import Terms
from trimtab_server.engine.plan_result import urgent_first
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.serial_executor import SerialExecutor
from trimtab_server.rollout.record import Origin, Served
from trimtab_server.rpc import deployment_encode as encode
from trimtab_server.rpc.admission import Admission
from trimtab_server.rpc.decode import decode_budget
from trimtab_server.rpc.deployment_decode import (
    decode_policy,
    decode_spec,
    decode_target,
    decode_wait,
    find_served,
    require_reason,
)
from trimtab_server.rpc.fields import PLACE_FIELDS, named_as
from trimtab_server.rpc.operation_text import (
    deployment_text,
    placement_text,
    policy_texts,
    served_text,
)
from trimtab_server.rpc.peers import peer_name
from trimtab_server.rpc.watch import placements

_T = TypeVar("_T")

_FIELDS = {**PLACE_FIELDS, "phy2log": "placement.phy2log"}


class DeploymentServicer(deployment_service_pb2_grpc.DeploymentServiceServicer):
    """Raises the server's own errors, which the interceptor converts to statuses."""

    def __init__(
        self,
        deployments: Deployments,
        operations: Operations,
        planner: Planner,
        admission: Admission,
    ) -> None:
        self._deployments = deployments
        self._operations = operations
        self._planner = planner
        self._admission = admission
        self._began = time.monotonic()
        self._executor = SerialExecutor()

    async def wait_idle(self) -> None:
        """Return once all operations that have begun are done and recorded."""
        await self._executor.wait_idle()

    async def CreateDeployment(
        self, request: pb.CreateDeploymentRequest, context: Any
    ) -> pb.CreateDeploymentResponse:
        """Creates a deployment before its workers connect."""
        peer = peer_name(context)
        name, spec = decode_spec(request.spec)
        policy = decode_policy(request.policy)
        known = self._known(name)

        async def create() -> Deployment:
            created = await self._deployments.create(name, spec, policy)
            if known is None:
                await self._record(peer, name, Kind.CREATE, after=deployment_text(created))
            return created

        deployment = await self._to_its_end(create())
        return pb.CreateDeploymentResponse(deployment=encode.encode_deployment(deployment))

    async def GetDeployment(
        self, request: pb.GetDeploymentRequest, context: Any
    ) -> pb.GetDeploymentResponse:
        """Reads one deployment."""
        deployment = self._deployments.find(request.deployment)
        return pb.GetDeploymentResponse(deployment=encode.encode_deployment(deployment))

    async def ListDeployments(
        self, request: pb.ListDeploymentsRequest, context: Any
    ) -> pb.ListDeploymentsResponse:
        """Reads all deployments, without their workers."""
        known = self._deployments.all()
        listed = [encode.encode_deployment(each, workers=False) for each in known]
        return pb.ListDeploymentsResponse(deployments=listed)

    async def UpdatePolicy(
        self, request: pb.UpdatePolicyRequest, context: Any
    ) -> pb.UpdatePolicyResponse:
        """Changes the policy of a deployment."""
        peer = peer_name(context)
        deployment = self._deployments.find(request.deployment)
        changed = decode_policy(request.policy)

        async def update() -> None:
            before = await deployment.operators.update_policy(changed)
            texts = policy_texts(before, deployment.policy)
            await self._record(peer, deployment.name, Kind.UPDATE_POLICY, *texts)

        await self._to_its_end(update())
        return pb.UpdatePolicyResponse(policy=encode.encode_policy(deployment.policy))

    async def DeleteDeployment(
        self, request: pb.DeleteDeploymentRequest, context: Any
    ) -> pb.DeleteDeploymentResponse:
        """Deletes a deployment."""
        peer = peer_name(context)
        name = request.deployment
        known = self._known(name)
        before = "" if known is None else deployment_text(known)

        async def delete() -> None:
            await self._deployments.delete(name)
            await self._record(peer, name, Kind.DELETE, before)

        await self._to_its_end(delete())
        return pb.DeleteDeploymentResponse()

    async def Trigger(self, request: pb.TriggerRequest, context: Any) -> pb.TriggerResponse:
        """Switches to a placement that is given, or planned from the reported load."""
        peer = peer_name(context)
        with named_as(_FIELDS):
            deployment = self._deployments.find(request.deployment)
            wait = decode_wait(request.wait_seconds)

            async def begin(target: Placement, order: tuple[int, ...]) -> None:
                before = _current(deployment)
                await deployment.operators.move_to(target, order)
                texts = served_text(before), placement_text(target)
                await self._record(peer, deployment.name, Kind.TRIGGER, *texts)

            async def attempt() -> Placement:
                target, order = await self._target(request, deployment)
                await self._to_its_end(begin(target, order))
                return target

            target = await deployment.operators.in_turn(attempt, wait)
            in_force, _ = deployment.rollout.record.served
            return pb.TriggerResponse(
                in_force=encode.encode_version(in_force), target=encode_placement(target)
            )

    async def Pause(self, request: pb.PauseRequest, context: Any) -> pb.PauseResponse:
        """Offers nothing until Resume."""
        peer = peer_name(context)
        require_reason(request.reason)
        deployment = self._deployments.find(request.deployment)

        async def pause() -> str:
            before = await deployment.operators.pause(request.reason) or ""
            await self._record(peer, deployment.name, Kind.PAUSE, before, request.reason)
            return before

        return pb.PauseResponse(previous_reason=await self._to_its_end(pause()))

    async def Resume(self, request: pb.ResumeRequest, context: Any) -> pb.ResumeResponse:
        """Allows offers again."""
        peer = peer_name(context)
        deployment = self._deployments.find(request.deployment)

        async def resume() -> str:
            before = await deployment.operators.resume() or ""
            await self._record(peer, deployment.name, Kind.RESUME, before)
            return before

        return pb.ResumeResponse(previous_reason=await self._to_its_end(resume()))

    async def ForgetLoad(
        self, request: pb.ForgetLoadRequest, context: Any
    ) -> pb.ForgetLoadResponse:
        """Discards the load that workers have reported so far."""
        peer = peer_name(context)
        deployment = self._deployments.find(request.deployment)

        async def forget() -> None:
            await deployment.operators.forget_load()
            await self._record(peer, deployment.name, Kind.FORGET_LOAD)

        await self._to_its_end(forget())
        return pb.ForgetLoadResponse()

    async def Pin(self, request: pb.PinRequest, context: Any) -> pb.PinResponse:
        """Keeps a deployment at one placement."""
        peer = peer_name(context)
        with named_as(_FIELDS):
            deployment = self._deployments.find(request.deployment)
            if request.HasField("placement"):
                target = await asyncio.to_thread(decode_target, request.placement, deployment.spec)
            else:
                target = _current(deployment).placement

            async def pin() -> None:
                before = await deployment.operators.pin(target)
                texts = placement_text(before), placement_text(target)
                await self._record(peer, deployment.name, Kind.PIN, *texts)

            await self._to_its_end(pin())
            in_force = encode.encode_version(deployment.rollout.record.in_force)
            return pb.PinResponse(in_force=in_force, target=encode_placement(target))

    async def Unpin(self, request: pb.UnpinRequest, context: Any) -> pb.UnpinResponse:
        """Lets the policy decide again."""
        peer = peer_name(context)
        deployment = self._deployments.find(request.deployment)

        async def unpin() -> Placement | None:
            before = await deployment.operators.pin(None)
            await self._record(peer, deployment.name, Kind.UNPIN, placement_text(before))
            return before

        before = await self._to_its_end(unpin())
        return pb.UnpinResponse(previous_digest=b"" if before is None else before.digest)

    async def RollBack(self, request: pb.RollBackRequest, context: Any) -> pb.RollBackResponse:
        """Pins a deployment to an earlier placement."""
        peer = peer_name(context)
        deployment = self._deployments.find(request.deployment)
        require(request.HasField("version"), "version", "is required")
        record = deployment.rollout.record
        served = find_served(request.version, record, deployment.name)
        before, target = _current(deployment), served.placement

        async def roll_back() -> None:
            await deployment.operators.pin(target, Origin.ROLLED_BACK)
            texts = served_text(before), served_text(served)
            await self._record(peer, deployment.name, Kind.ROLL_BACK, *texts)

        await self._to_its_end(roll_back())
        in_force = encode.encode_version(deployment.rollout.record.in_force)
        return pb.RollBackResponse(in_force=in_force, target=encode_placement(target))

    async def GetPlacement(
        self, request: pb.GetPlacementRequest, context: Any
    ) -> pb.GetPlacementResponse:
        """Reads the current or an earlier placement."""
        deployment = self._deployments.find(request.deployment)
        if request.HasField("version"):
            served = find_served(request.version, deployment.durable, deployment.name)
        else:
            served = _current(deployment)
        return pb.GetPlacementResponse(**encode.encode_served(served, deployment.spec))

    async def WatchPlacement(
        self, request: pb.WatchPlacementRequest, context: Any
    ) -> AsyncIterator[pb.WatchPlacementResponse]:
        """Streams the current placement, and each new one."""
        deployment, known = self._deployments.find(request.deployment), None
        if request.HasField("known"):
            known = Version(request.known.epoch, request.known.generation)
        async with aclosing(placements(deployment, known, self._admission.draining)) as changes:
            async for served in changes:
                yield pb.WatchPlacementResponse(**encode.encode_served(served, deployment.spec))

    async def ListDecisions(
        self, request: pb.ListDecisionsRequest, context: Any
    ) -> pb.ListDecisionsResponse:
        """Reads the latest decisions with their reasons."""
        log = self._deployments.find(request.deployment).decisions
        decided = log.newest(request.limit)
        return pb.ListDecisionsResponse(decisions=map(encode.encode_decision, decided))

    async def GetServerStatus(
        self, request: pb.GetServerStatusRequest, context: Any
    ) -> pb.GetServerStatusResponse:
        """Reads the status of the server itself, also while it warms up or drains."""
        return encode.encode_server_status(self._deployments, time.monotonic() - self._began)

    async def ListOperations(
        self, request: pb.ListOperationsRequest, context: Any
    ) -> pb.ListOperationsResponse:
        """Reads what operators have done to a deployment."""
        done = await self._operations.newest(request.deployment, request.limit)
        return pb.ListOperationsResponse(operations=map(encode.encode_operation, done))

    def _known(self, name: str) -> Deployment | None:
        with suppress(NotFoundError):
            return self._deployments.find(name)
        return None

    async def _to_its_end(self, operation: Coroutine[Any, Any, _T]) -> _T:
        """Do it and record it even if its caller gives up: nothing is done without a trace.

        It may not use the context of the call, which may have ended.
        """
        return await self._executor.run(operation)

    async def _record(
        self, peer: str, deployment: str, kind: Kind, before: str = "", after: str = ""
    ) -> None:
        await self._operations.record(deployment, kind, peer, before, after)

    async def _target(
        self, request: pb.TriggerRequest, deployment: Deployment
    ) -> tuple[Placement, tuple[int, ...]]:
        """The placement to switch to, and the layers to switch first."""
        spec = deployment.spec
        if request.HasField("placement"):
            require(not request.HasField("budget"), "budget", "may not be set if placement is")
            return await asyncio.to_thread(decode_target, request.placement, spec), ()
        reason = deployment.blocked_reason
        if reason is not None:
            raise FailedPreconditionError(reason)
        load_LE = deployment.load()
        if not load_LE.any():
            raise FailedPreconditionError("no worker has reported any load yet")
        budget = decode_budget(request.budget) if request.HasField("budget") else None
        _, served = deployment.rollout.record.served
        placed = await self._planner.place(load_LE, Terms(spec.topology, budget), served)
        return placed.placement, urgent_first(placed)


def _current(deployment: Deployment) -> Served:
    """The current placement. Raises FailedPreconditionError if there is none."""
    record = deployment.durable
    if record.in_force is None:
        raise FailedPreconditionError(
            f"deployment {deployment.name!r} has no placement yet: no group has been complete"
        )
    return Served(*record.served)
