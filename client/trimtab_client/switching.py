"""The calls of `Client` by which operators say what a deployment serves by."""

from __future__ import annotations

from typing import SupportsIndex

import numpy.typing as npt

from trimtab.v1alpha1.deployment_service_pb2_grpc import DeploymentServiceStub
from trimtab_client import wire_switching
from trimtab_client.calling import Calls
from trimtab_client.options import MoveBudget
from trimtab_client.placement import Placement
from trimtab_client.results import TriggerResult
from trimtab_protocol.version import Version


class Switching(Calls):
    """To be mixed into a client that has a stub of DeploymentService."""

    _deployments: DeploymentServiceStub

    def trigger(
        self,
        deployment: str,
        *,
        placement: Placement | npt.ArrayLike | None = None,
        budget: MoveBudget | None = None,
        timeout: float | None = None,
    ) -> TriggerResult:
        """Switch a deployment to another placement, in as many switches as it takes.

        Returns once the first one is offered to the workers. They may still refuse it, and
        an abort gives the target up; where it is in force already, nothing is offered.

        Asked twice, it switches twice: so it is tried again only where the server has turned
        it away and said when to come back. After an UnavailableError or a
        DeadlineExceededError the switch may have begun all the same.

        Args:
            deployment: its name.
            placement: where to go, or its `phy2log` [L, R]; None: planned from what the
                workers have reported.
            budget: with it, what is in force is improved by the best few moves instead of
                being planned anew. Not together with `placement`.
            timeout: in seconds; None: the client's; `math.inf`: no limit.

        Raises:
            NotFoundError: there is no such deployment.
            FailedPreconditionError: nothing can be offered now: the deployment has no
                complete group, is paused or pinned, another switch is open, or no load has been
                reported.
        """
        request = wire_switching.trigger_request(deployment, placement, budget)
        method = self._deployments.Trigger
        return wire_switching.trigger_result(self._call(method, request, timeout, repeatable=False))

    def pause(self, deployment: str, reason: str, *, timeout: float | None = None) -> str | None:
        """Offer a deployment nothing until `resume`, also after a restart of the server.

        What is offered is aborted; what is committed goes on.

        Args:
            deployment: its name.
            reason: for people, at most 1000 characters. A `trigger` is refused with it.
            timeout: in seconds; None: the client's; `math.inf`: no limit.

        Returns:
            What it was paused for before; None: it was not. Where an attempt has failed and
            another follows, that may be what the first one did.

        Raises:
            NotFoundError: there is no such deployment.
        """
        request = wire_switching.pause_request(deployment, reason)
        return wire_switching.previous_reason(self._call(self._deployments.Pause, request, timeout))

    def resume(self, deployment: str, *, timeout: float | None = None) -> str | None:
        """Allow offers again, whoever paused. Arguments, result and errors as of `pause`.

        The server pauses by itself where workers serve by what they cannot, or have flipped at
        different steps: mend that first. What was on its way before is not taken up again.
        """
        request = wire_switching.resume_request(deployment)
        return wire_switching.previous_reason(
            self._call(self._deployments.Resume, request, timeout)
        )

    def forget_load(self, deployment: str, *, timeout: float | None = None) -> None:
        """Forget a deployment's load: what its workers have reported so far is no traffic.

        For after a warm-up or a benchmark that went through the workers. Nothing is decided
        before there is enough load anew. Repeatable. Engines call `WorkerSession.forget_load`
        by themselves, which also covers what a worker has not reported yet.

        Args:
            deployment: its name.
            timeout: in seconds; None: the client's; `math.inf`: no limit.

        Raises:
            NotFoundError: there is no such deployment.
        """
        request = wire_switching.forget_load_request(deployment)
        self._call(self._deployments.ForgetLoad, request, timeout)

    def pin(
        self,
        deployment: str,
        placement: Placement | npt.ArrayLike | None = None,
        *,
        timeout: float | None = None,
    ) -> TriggerResult:
        """Keep a deployment at one placement, whatever its loads, until `unpin`.

        It is switched to it as soon as it can be, and again where a new group comes with another
        one. Where another is pinned already, this one takes its place. Repeatable.

        Args:
            deployment: its name.
            placement: where to keep it, or its `phy2log` [L, R]; None: what is in force.
            timeout: in seconds; None: the client's; `math.inf`: no limit.

        Raises:
            NotFoundError: there is no such deployment.
            FailedPreconditionError: there is nothing in force to keep it at.
        """
        request = wire_switching.pin_request(deployment, placement)
        return wire_switching.trigger_result(self._call(self._deployments.Pin, request, timeout))

    def unpin(self, deployment: str, *, timeout: float | None = None) -> bytes | None:
        """Let a deployment's policy decide again. Repeatable.

        Args:
            deployment: its name.
            timeout: in seconds; None: the client's; `math.inf`: no limit.

        Returns:
            The digest of what it was pinned to; None: it was not. Where an attempt has failed
            and another follows, that may be what the first one did.

        Raises:
            NotFoundError: there is no such deployment.
        """
        request = wire_switching.unpin_request(deployment)
        return wire_switching.previous_digest(self._call(self._deployments.Unpin, request, timeout))

    def roll_back(
        self,
        deployment: str,
        version: Version | SupportsIndex | str,
        *,
        timeout: float | None = None,
    ) -> TriggerResult:
        """Pin a deployment to what was in force before, which becomes a new generation.

        Repeatable: it is pinned to the same placement again, and switched to it once. Only
        where an attempt whose answer was lost has pushed that version out of the 16 that the
        server remembers, the next one raises NotFoundError.

        Args:
            deployment: its name.
            version: what to go back to, one of `DeploymentStatus.past`: a Version, a generation,
                or either as text, such as "2.3" or "3". A generation alone is the newest of it.
            timeout: in seconds; None: the client's; `math.inf`: no limit.

        Raises:
            NotFoundError: there is no such deployment, or it has no such version any more.
        """
        request = wire_switching.roll_back_request(deployment, version)
        return wire_switching.trigger_result(
            self._call(self._deployments.RollBack, request, timeout)
        )
