"""The standard gRPC health service, and waiting until a server is ready."""

from __future__ import annotations

from typing import Any

import grpc

from trimtab.wire.v1 import standard_pb2
from trimtab_client.exceptions import DeadlineExceededError, TrimtabError, UnavailableError
from trimtab_client.retry import Deadline
from trimtab_client.status import error_of_call
from trimtab_client.wire import ServingStatus

SOLVER_SERVICE = "trimtab.v1.SolverService"
"""The name under which the server reports the health of the solver's calls."""

CHECK: dict[str, Any] = {
    "method": "/grpc.health.v1.Health/Check",
    "request_serializer": standard_pb2.HealthCheckRequest.SerializeToString,
    "response_deserializer": standard_pb2.HealthCheckResponse.FromString,
}
"""Arguments of a channel's `unary_unary` for the health check."""

POLL_SECONDS = 0.1
"""Pause between two checks while waiting."""


def status_of_failure(failure: grpc.RpcError) -> ServingStatus:
    """The status that a failed health check implies.

    Raises:
        TrimtabError: the failure says nothing about the service.
    """
    if failure.code() is grpc.StatusCode.NOT_FOUND:
        return ServingStatus.SERVICE_UNKNOWN
    raise error_of_call(failure) from failure


class Readiness:
    """Decides when a wait for SERVING ends, and how.

    Args:
        deadline: when the wait ends without success.
    """

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self._last = "no server answered"

    def reached(self, outcome: ServingStatus | TrimtabError) -> bool:
        """Whether the server is ready, by the outcome of a check.

        Raises:
            DeadlineExceededError: the server is not ready, and the time is up.
            TrimtabError: the check failed in a way that waiting does not cure.
        """
        if outcome is ServingStatus.SERVING:
            return True
        if isinstance(outcome, ServingStatus):
            self._last = f"the server says {outcome.value}"
        elif isinstance(outcome, UnavailableError):
            self._last = outcome.details
        elif not isinstance(outcome, DeadlineExceededError):
            raise outcome
        if self.deadline.remaining() <= 0:
            limit = f"{self.deadline.timeout:g} s"
            raise DeadlineExceededError(f"not ready within {limit}: {self._last}")
        return False
