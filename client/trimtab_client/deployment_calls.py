"""The calls of `Client` with which operators create, read, switch and delete deployments."""

from __future__ import annotations

import math
from collections.abc import Generator
from functools import partial
from typing import SupportsIndex

import numpy.typing as npt

from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client import watching
from trimtab_client import wire_deployments as wire
from trimtab_client.calling import ClientBase
from trimtab_client.checks import real, text
from trimtab_client.deployments import (
    Deployment,
    DeploymentSpec,
    ServedPlacement,
    ServerStatus,
)
from trimtab_client.exceptions import invalid
from trimtab_client.operations import Operation
from trimtab_client.options import MoveBudget
from trimtab_client.placement import Placement
from trimtab_client.policies import Decision, Policy
from trimtab_client.results import TriggerResult
from trimtab_client.retry import check_timeout
from trimtab_client.status import SWITCHING
from trimtab_client.wire_deployments import (
    decision_values,
    operation_values,
    policy_message,
    policy_value,
)
from trimtab_client.wire_values import budget_message, placement_message, uint32, version_message
from trimtab_protocol.operations import MAX_WAIT_S
from trimtab_protocol.version import Version


class DeploymentCalls(ClientBase):
    """The calls of DeploymentService. `Client` says what their arguments and errors share.

    `AsyncClient` makes its methods of these by `calling.awaited`. All calls but `trigger` are
    idempotent.
    """

    def server_status(self, *, timeout: float | None = None) -> ServerStatus:
        """The state of the server itself: its version, and whether its store works.

        Raises:
            UnimplementedError: the server is too old to say.
        """
        request = pb.GetServerStatusRequest()
        return self._call(self._service.GetServerStatus, request, wire.server_status, timeout)

    def create_deployment(
        self, spec: DeploymentSpec, policy: Policy | None = None, *, timeout: float | None = None
    ) -> Deployment:
        """Create a deployment before its workers connect, which then have to agree with it.

        You need not call this: the first worker creates the deployment too, unless the server's
        setting create_deployments is "operators". If the same deployment exists already, it is
        returned. Without a `policy` it has the server's default.

        Raises:
            AlreadyExistsError: a deployment of that name has another spec or policy.
            FailedPreconditionError: the server's setting create_deployments is "workers".
        """
        request = pb.CreateDeploymentRequest(spec=wire.spec_message(spec))
        if policy is not None:
            request.policy.CopyFrom(policy_message(policy))
        return self._call(self._service.CreateDeployment, request, _deployment, timeout)

    def get_deployment(self, deployment: str, *, timeout: float | None = None) -> Deployment:
        """Everything that is known about one deployment."""
        request = pb.GetDeploymentRequest(deployment=_name(deployment))
        return self._call(self._service.GetDeployment, request, _deployment, timeout)

    def deployments(self, *, timeout: float | None = None) -> list[Deployment]:
        """All deployments, sorted by name, without their workers."""
        request = pb.ListDeploymentsRequest()
        return self._call(self._service.ListDeployments, request, wire.deployment_values, timeout)

    def update_policy(
        self, deployment: str, policy: Policy, *, timeout: float | None = None
    ) -> Policy:
        """Change when, how far and whether experts move, from the next decision on.

        A setting that is None stays as it is. The result is the whole policy after the change.
        """
        name, message = _name(deployment), policy_message(policy)
        request = pb.UpdatePolicyRequest(deployment=name, policy=message)
        method = self._service.UpdatePolicy
        return self._call(method, request, lambda said: policy_value(said.policy), timeout)

    def delete_deployment(self, deployment: str, *, timeout: float | None = None) -> None:
        """Delete a deployment and all that the server remembers about it.

        `DeploymentStatus.unused_seconds` tells which deployments nobody uses any more.

        Raises:
            NotFoundError: also if an earlier attempt of this call deleted it, and its answer was
                lost.
            FailedPreconditionError: workers of the deployment have sessions.
        """
        request = pb.DeleteDeploymentRequest(deployment=_name(deployment))
        return self._call(self._service.DeleteDeployment, request, lambda _: None, timeout)

    def decisions(
        self, deployment: str, limit: int = 0, *, timeout: float | None = None
    ) -> list[Decision]:
        """The latest decisions with their reasons, oldest first.

        The server keeps the last 256 decisions since it started. At most `limit` are returned, the
        newest; with 0, all.
        """
        name, limit = _name(deployment), uint32(limit, "limit")
        request = pb.ListDecisionsRequest(deployment=name, limit=limit)
        return self._call(self._service.ListDecisions, request, decision_values, timeout)

    def operations(
        self, deployment: str, limit: int = 0, *, timeout: float | None = None
    ) -> list[Operation]:
        """What operators have done to a deployment, oldest first, also one that was deleted.

        The server keeps this over restarts: over all deployments, as many operations as its setting
        `max_operations` says. At most `limit` are returned, the newest; with 0, all.
        """
        name, limit = _name(deployment), uint32(limit, "limit")
        request = pb.ListOperationsRequest(deployment=name, limit=limit)
        return self._call(self._service.ListOperations, request, operation_values, timeout)

    def get_placement(
        self,
        deployment: str,
        version: Version | SupportsIndex | str | None = None,
        *,
        timeout: float | None = None,
    ) -> ServedPlacement:
        """The current placement of a deployment, or an earlier one.

        `version` is one of `DeploymentStatus.past`, as in `roll_back`; None for the current one.

        Raises:
            NotFoundError: also if the deployment no longer has that version.
        """
        request = pb.GetPlacementRequest(deployment=_name(deployment))
        if version is not None:
            request.version.CopyFrom(version_message(version, "version"))
        return self._call(self._service.GetPlacement, request, wire.served_placement, timeout)

    def watch_placement(
        self, deployment: str, known: Version | None = None, *, timeout: float = math.inf
    ) -> Generator[ServedPlacement]:
        """Yield the current placement, and then each new one as it comes into force.

        A slow reader may miss placements, but never the latest. No version is yielded twice in a
        row. If the server stops or restarts, the watch continues from the last version once the
        server is back: between attempts it waits as the client's `retry` says, but it never gives
        up. Leaving the loop early, closing the generator or closing the client cancels the call.

        The deployment may have no placement yet. `known` is the version that the reader has, which
        is not yielded; None if it has none. The timeout is that of the whole watch.

        Raises:
            NotFoundError: also if the deployment was deleted.
            DeadlineExceededError: the timeout ran out.
        """
        self._require_open()
        watch = watching.Watch(deployment, known, self._retry, self._deadline(timeout))
        start = partial(self._start, self._service.WatchPlacement)
        return watching.placements(watch, start, lambda: self._closed)

    def trigger(
        self,
        deployment: str,
        *,
        placement: Placement | npt.ArrayLike | None = None,
        budget: MoveBudget | None = None,
        wait: float = 0.0,
        timeout: float | None = None,
    ) -> TriggerResult:
        """Switch a deployment to another placement, in as many switches as that takes.

        Returns once the first switch is offered to the workers. They may still refuse it, and if a
        switch is aborted, the server gives up the target. If the target is in force already,
        nothing is offered.

        The target is `placement`, or its `phy2log` [L, R]; if it is None, a placement planned from
        the loads that the workers have reported. With a `budget`, but no `placement`, the current
        placement is improved by the best few moves instead of being planned anew.

        If nothing can be offered now, since a switch is open or workers are missing, the server
        waits for at most `wait` seconds, in which its policy begins no rollout; the timeout is
        meant in addition. Afterwards the policy may move experts again: see `pin`.

        This call is not idempotent. So it is tried again only if the server turned it away and said
        when to come back. After an UnavailableError or a DeadlineExceededError the switch may have
        begun all the same.

        Raises:
            FailedPreconditionError: nothing can be offered, even after the wait: the deployment
                has no complete group, is paused or pinned, another switch is open, or no load has
                been reported.
        """
        if not 0 <= (wait := real(wait, "wait")) <= MAX_WAIT_S:
            raise invalid("wait", f"{wait:g} is not a time of 0 to {MAX_WAIT_S:g} seconds")
        limit = self._timeout if timeout is None else check_timeout(timeout)
        request = pb.TriggerRequest(
            deployment=_name(deployment),
            placement=placement_message(placement, "placement"),
            budget=budget_message(budget),
            wait_seconds=wait,
        )
        method, decode = self._service.Trigger, wire.trigger_result
        return self._call(method, request, decode, limit + wait, idempotent=False, advice=SWITCHING)

    def pause(self, deployment: str, reason: str, *, timeout: float | None = None) -> str | None:
        """Offer a deployment no switch until `resume`, even if the server restarts.

        A switch that is offered is aborted; one that is committed is carried out. `reason` is for
        people, at most 1000 characters; `trigger` is refused with it.

        Returns:
            The reason of the previous pause; None if the deployment was not paused. If an attempt
            failed and was repeated, this may be what the first attempt set.
        """
        request = pb.PauseRequest(deployment=_name(deployment), reason=text(reason, "reason"))
        return self._call(self._service.Pause, request, _previous_reason, timeout)

    def resume(self, deployment: str, *, timeout: float | None = None) -> str | None:
        """Allow offers again, after any pause. The result is that of `pause`.

        The server itself pauses a deployment whose workers serve with a wrong placement or have
        flipped at different steps: repair that first. A switch that the pause aborted is not taken
        up again.
        """
        request = pb.ResumeRequest(deployment=_name(deployment))
        return self._call(self._service.Resume, request, _previous_reason, timeout)

    def forget_load(self, deployment: str, *, timeout: float | None = None) -> None:
        """Discard the load of a deployment that its workers have reported so far.

        Call it after a warm-up or a benchmark that went through the workers. The server decides
        nothing until it has enough load again. Engines should call `WorkerSession.forget_load`
        instead, which also covers what a worker has not reported yet.
        """
        request = pb.ForgetLoadRequest(deployment=_name(deployment))
        return self._call(self._service.ForgetLoad, request, lambda _: None, timeout)

    def pin(
        self,
        deployment: str,
        placement: Placement | npt.ArrayLike | None = None,
        *,
        timeout: float | None = None,
    ) -> TriggerResult:
        """Keep a deployment at one placement, whatever its loads, until `unpin`.

        The deployment is switched to it as soon as possible, and again if a new group starts with
        another placement. It replaces an earlier pin. `placement` may be its `phy2log` [L, R]; None
        stands for the current one.

        Raises:
            FailedPreconditionError: `placement` is None, and the deployment has no placement.
        """
        name, target = _name(deployment), placement_message(placement, "placement")
        request = pb.PinRequest(deployment=name, placement=target)
        return self._call(self._service.Pin, request, wire.trigger_result, timeout)

    def unpin(self, deployment: str, *, timeout: float | None = None) -> bytes | None:
        """Let the policy of a deployment decide again.

        Returns:
            The digest of the pinned placement; None if the deployment was not pinned. If an attempt
            failed and was repeated, the first attempt may have removed the pin.
        """
        request = pb.UnpinRequest(deployment=_name(deployment))
        method = self._service.Unpin
        return self._call(method, request, lambda said: said.previous_digest or None, timeout)

    def roll_back(
        self,
        deployment: str,
        version: Version | SupportsIndex | str,
        *,
        timeout: float | None = None,
    ) -> TriggerResult:
        """Pin a deployment to an earlier placement, which becomes a new generation.

        The call may be repeated: the deployment is then pinned to the same placement, and switched
        once. The server remembers as many versions as its setting `rollback_points` says. If the
        answer of an attempt is lost and that attempt pushed the version out of these, the next
        attempt raises NotFoundError.

        `version` is one of `DeploymentStatus.past`: a Version, a generation, or either as text,
        such as "2.3" or "3". A generation alone means the newest version with it.

        Raises:
            NotFoundError: also if the deployment no longer has that version.
        """
        name, wanted = _name(deployment), version_message(version, "version")
        request = pb.RollBackRequest(deployment=name, version=wanted)
        return self._call(self._service.RollBack, request, wire.trigger_result, timeout)


_name = partial(text, field="deployment")


def _deployment(response: pb.CreateDeploymentResponse | pb.GetDeploymentResponse) -> Deployment:
    return wire.deployment_value(response.deployment)


def _previous_reason(response: pb.PauseResponse | pb.ResumeResponse) -> str | None:
    return response.previous_reason or None
