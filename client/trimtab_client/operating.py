"""The calls of `Client` by which operators and readers deal with deployments."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, SupportsIndex

from trimtab.v1alpha1.deployment_service_pb2_grpc import DeploymentServiceStub
from trimtab_client import watching, wire_deployments, wire_policies, wire_switching
from trimtab_client.calling import Calls
from trimtab_client.deployments import Deployment, DeploymentSpec, ServedPlacement
from trimtab_client.policies import Decision, Policy
from trimtab_client.retry import Deadline, check_timeout
from trimtab_protocol.version import Version


class Operating(Calls):
    """To be mixed into a client that has a stub of DeploymentService. All are repeatable."""

    _deployments: DeploymentServiceStub

    def create_deployment(
        self, spec: DeploymentSpec, policy: Policy | None = None, *, timeout: float | None = None
    ) -> Deployment:
        """Create a deployment before its workers come, which then have to agree with it.

        Not needed: the first worker creates one too. Asked again for the same, it answers what
        there is.

        Args:
            spec: what it is.
            policy: when its experts move; None: the server's default.
            timeout: in seconds; None: the client's; `math.inf`: no limit.

        Raises:
            AlreadyExistsError: there is another one of that name, or it has another policy.
        """
        request = wire_deployments.create_request(spec, policy)
        response = self._call(self._deployments.CreateDeployment, request, timeout)
        return wire_deployments.deployment_value(response.deployment)

    def get_deployment(self, deployment: str, *, timeout: float | None = None) -> Deployment:
        """All that is known of one deployment.

        Args:
            deployment: its name.
            timeout: in seconds; None: the client's; `math.inf`: no limit.

        Raises:
            NotFoundError: there is no such deployment.
        """
        request = wire_deployments.get_request(deployment)
        response = self._call(self._deployments.GetDeployment, request, timeout)
        return wire_deployments.deployment_value(response.deployment)

    def deployments(self, *, timeout: float | None = None) -> list[Deployment]:
        """All deployments, in order of their names, without their workers.

        Args:
            timeout: in seconds; None: the client's; `math.inf`: no limit.
        """
        request = wire_deployments.list_request()
        response = self._call(self._deployments.ListDeployments, request, timeout)
        return wire_deployments.deployments_value(response)

    def update_policy(
        self, deployment: str, policy: Policy, *, timeout: float | None = None
    ) -> Policy:
        """Change when, how far and whether experts move, from the next decision on.

        Args:
            deployment: its name.
            policy: what is to be otherwise; what is None stays.
            timeout: in seconds; None: the client's; `math.inf`: no limit.

        Returns:
            All of it, as it is now.

        Raises:
            NotFoundError: there is no such deployment.
        """
        request = wire_deployments.update_request(deployment, policy)
        response = self._call(self._deployments.UpdatePolicy, request, timeout)
        return wire_policies.policy_value(response.policy)

    def delete_deployment(self, deployment: str, *, timeout: float | None = None) -> None:
        """Forget a deployment.

        Args:
            deployment: its name.
            timeout: in seconds; None: the client's; `math.inf`: no limit.

        Raises:
            NotFoundError: there is no such deployment: also where an attempt whose answer was
                lost has deleted it.
            FailedPreconditionError: workers have sessions.
        """
        request = wire_deployments.delete_request(deployment)
        self._call(self._deployments.DeleteDeployment, request, timeout)

    def decisions(
        self, deployment: str, limit: int = 0, *, timeout: float | None = None
    ) -> list[Decision]:
        """What was decided last and why, the oldest first: 256 since the server's start at most.

        Args:
            deployment: its name.
            limit: most to answer, the newest; 0: all that there are.
            timeout: in seconds; None: the client's; `math.inf`: no limit.

        Raises:
            NotFoundError: there is no such deployment.
        """
        request = wire_deployments.decisions_request(deployment, limit)
        response = self._call(self._deployments.ListDecisions, request, timeout)
        return wire_deployments.decisions_value(response)

    def get_placement(
        self,
        deployment: str,
        version: Version | SupportsIndex | str | None = None,
        *,
        timeout: float | None = None,
    ) -> ServedPlacement:
        """The placement in force, or one that was.

        Args:
            deployment: its name.
            version: one of `DeploymentStatus.past`, as in `roll_back`; None: what is in force.
            timeout: in seconds; None: the client's; `math.inf`: no limit.

        Raises:
            NotFoundError: there is no such deployment, or it has no such version any more.
        """
        request = wire_switching.get_placement_request(deployment, version)
        response = self._call(self._deployments.GetPlacement, request, timeout)
        return wire_switching.served_placement(response)

    def watch_placement(
        self, deployment: str, known: Version | None = None, *, timeout: float = math.inf
    ) -> Generator[ServedPlacement]:
        """The placement in force, and each that comes into force after it.

        Whoever reads slowly misses some, but never the latest. No version comes twice in a row.
        Where the server is away or restarts, the watch goes on as soon as it is back, from the
        version that came last: it waits between attempts as the client's `retry` says, but
        never gives up. Leaving the loop early, closing the generator or closing the client
        cancels the call.

        Args:
            deployment: its name. It may have no placement yet.
            known: what the reader has: it does not come again; None: nothing.
            timeout: of the whole watch, in seconds.

        Raises:
            NotFoundError: there is no such deployment, or not any more.
            DeadlineExceededError: the timeout ran out.
        """
        self._require_open()
        deadline = Deadline(check_timeout(timeout))
        watch = watching.Watch(deployment, known, self._retry, deadline)

        def start(request: Any, seconds: float | None) -> Any:
            self._require_open()
            return self._deployments.WatchPlacement(request, timeout=seconds)

        return watching.placements(watch, start, lambda: self._closed)
