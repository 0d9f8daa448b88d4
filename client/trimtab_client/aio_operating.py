"""The calls of `AsyncClient` by which deployments are operated and read."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, SupportsIndex
from weakref import WeakSet

import numpy.typing as npt

from trimtab_client import watching, wire_deployments, wire_policies, wire_switching
from trimtab_client.calling import AioCalls
from trimtab_client.deployments import Deployment, DeploymentSpec, ServedPlacement
from trimtab_client.options import MoveBudget
from trimtab_client.placement import Placement
from trimtab_client.policies import Decision, Policy
from trimtab_client.results import TriggerResult
from trimtab_client.retry import Deadline, check_timeout
from trimtab_protocol.version import Version

if TYPE_CHECKING:
    from trimtab.v1alpha1.deployment_service_pb2_grpc import DeploymentServiceAsyncStub


class AioOperating(AioCalls):
    """To be mixed into a client that has a stub of DeploymentService.

    The twin of `operating.Operating` and `switching.Switching`, call for call.
    """

    _deployments: DeploymentServiceAsyncStub
    _streams: WeakSet[Any]

    async def create_deployment(
        self, spec: DeploymentSpec, policy: Policy | None = None, *, timeout: float | None = None
    ) -> Deployment:
        """Create a deployment before its workers come. See `Client.create_deployment`."""
        request = wire_deployments.create_request(spec, policy)
        response = await self._call(self._deployments.CreateDeployment, request, timeout)
        return wire_deployments.deployment_value(response.deployment)

    async def get_deployment(self, deployment: str, *, timeout: float | None = None) -> Deployment:
        """All that is known of one deployment. See `Client.get_deployment`."""
        request = wire_deployments.get_request(deployment)
        response = await self._call(self._deployments.GetDeployment, request, timeout)
        return wire_deployments.deployment_value(response.deployment)

    async def deployments(self, *, timeout: float | None = None) -> list[Deployment]:
        """All deployments, without their workers. See `Client.deployments`."""
        request = wire_deployments.list_request()
        response = await self._call(self._deployments.ListDeployments, request, timeout)
        return wire_deployments.deployments_value(response)

    async def update_policy(
        self, deployment: str, policy: Policy, *, timeout: float | None = None
    ) -> Policy:
        """Change when, how far and whether experts move. See `Client.update_policy`."""
        request = wire_deployments.update_request(deployment, policy)
        response = await self._call(self._deployments.UpdatePolicy, request, timeout)
        return wire_policies.policy_value(response.policy)

    async def delete_deployment(self, deployment: str, *, timeout: float | None = None) -> None:
        """Forget a deployment. See `Client.delete_deployment`."""
        request = wire_deployments.delete_request(deployment)
        await self._call(self._deployments.DeleteDeployment, request, timeout)

    async def decisions(
        self, deployment: str, limit: int = 0, *, timeout: float | None = None
    ) -> list[Decision]:
        """What was decided last and why. See `Client.decisions`."""
        request = wire_deployments.decisions_request(deployment, limit)
        response = await self._call(self._deployments.ListDecisions, request, timeout)
        return wire_deployments.decisions_value(response)

    async def get_placement(
        self,
        deployment: str,
        version: Version | SupportsIndex | str | None = None,
        *,
        timeout: float | None = None,
    ) -> ServedPlacement:
        """The placement in force, or one that was. See `Client.get_placement`."""
        request = wire_switching.get_placement_request(deployment, version)
        response = await self._call(self._deployments.GetPlacement, request, timeout)
        return wire_switching.served_placement(response)

    def watch_placement(
        self, deployment: str, known: Version | None = None, *, timeout: float = math.inf
    ) -> AsyncGenerator[ServedPlacement]:
        """Each placement that comes into force. See `Client.watch_placement`.

        To leave the loop early and be sure that the call is cancelled at once, use
        `contextlib.aclosing`.
        """
        self._require_open()
        deadline = Deadline(check_timeout(timeout))
        watch = watching.Watch(deployment, known, self._retry, deadline)

        def start(request: Any, seconds: float | None) -> Any:
            self._require_open()
            call = self._deployments.WatchPlacement(request, timeout=seconds)
            self._streams.add(call)
            return call

        return watching.aio_placements(watch, start)

    async def trigger(
        self,
        deployment: str,
        *,
        placement: Placement | npt.ArrayLike | None = None,
        budget: MoveBudget | None = None,
        timeout: float | None = None,
    ) -> TriggerResult:
        """Switch a deployment to another placement. See `Client.trigger`."""
        request = wire_switching.trigger_request(deployment, placement, budget)
        method = self._deployments.Trigger
        return wire_switching.trigger_result(
            await self._call(method, request, timeout, repeatable=False)
        )

    async def pause(
        self, deployment: str, reason: str, *, timeout: float | None = None
    ) -> str | None:
        """Offer a deployment nothing until `resume`. See `Client.pause`."""
        request = wire_switching.pause_request(deployment, reason)
        return wire_switching.previous_reason(
            await self._call(self._deployments.Pause, request, timeout)
        )

    async def resume(self, deployment: str, *, timeout: float | None = None) -> str | None:
        """Allow offers again. See `Client.resume`."""
        request = wire_switching.resume_request(deployment)
        return wire_switching.previous_reason(
            await self._call(self._deployments.Resume, request, timeout)
        )

    async def forget_load(self, deployment: str, *, timeout: float | None = None) -> None:
        """Forget a deployment's load. See `Client.forget_load`."""
        request = wire_switching.forget_load_request(deployment)
        await self._call(self._deployments.ForgetLoad, request, timeout)

    async def pin(
        self,
        deployment: str,
        placement: Placement | npt.ArrayLike | None = None,
        *,
        timeout: float | None = None,
    ) -> TriggerResult:
        """Keep a deployment at one placement until `unpin`. See `Client.pin`."""
        request = wire_switching.pin_request(deployment, placement)
        response = await self._call(self._deployments.Pin, request, timeout)
        return wire_switching.trigger_result(response)

    async def unpin(self, deployment: str, *, timeout: float | None = None) -> bytes | None:
        """Let a deployment's policy decide again. See `Client.unpin`."""
        request = wire_switching.unpin_request(deployment)
        response = await self._call(self._deployments.Unpin, request, timeout)
        return wire_switching.previous_digest(response)

    async def roll_back(
        self,
        deployment: str,
        version: Version | SupportsIndex | str,
        *,
        timeout: float | None = None,
    ) -> TriggerResult:
        """Pin a deployment to what was in force before. See `Client.roll_back`."""
        request = wire_switching.roll_back_request(deployment, version)
        response = await self._call(self._deployments.RollBack, request, timeout)
        return wire_switching.trigger_result(response)
