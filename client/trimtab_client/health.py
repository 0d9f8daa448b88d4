"""The standard gRPC health service, and waiting until a server is ready."""

from __future__ import annotations

from typing import Any

import grpc

from trimtab.wire.v1 import standard_pb2
from trimtab_client import wire
from trimtab_client.exceptions import DeadlineExceededError, NotFoundError, UnavailableError
from trimtab_client.retry import Deadline
from trimtab_client.status import error_of_call

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


class _NotServing(grpc.RpcError):
    """The server answered with another status than SERVING. Raised like a failed call."""


class Readiness:
    """The attempts of a wait until the server is SERVING; takes the place of `retry.Attempts`."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._last = "no server answered"
        self.timeout = deadline.grpc_timeout

    def decode(self, response: standard_pb2.HealthCheckResponse) -> None:
        """Accept SERVING, and have the check repeated for any other status."""
        status = wire.serving_status(response)
        if status is not wire.ServingStatus.SERVING:
            raise _NotServing(status.value)

    def delay_after(self, failure: grpc.RpcError) -> float:
        """Seconds to wait before the next check.

        Raises:
            DeadlineExceededError: the server is not ready, and the time is up.
            TrimtabError: the check failed in a way that waiting does not cure.
        """
        if isinstance(failure, _NotServing):
            self._last = f"the server says {failure}"
        else:
            error = error_of_call(failure)
            if isinstance(error, NotFoundError):
                self._last = "the server says SERVICE_UNKNOWN"
            elif isinstance(error, UnavailableError):
                self._last = error.details
            elif not isinstance(error, DeadlineExceededError):
                raise error from failure
        if self._deadline.remaining() <= 0:
            limit = f"{self._deadline.timeout:g} s"
            raise DeadlineExceededError(f"not ready within {limit}: {self._last}")
        return POLL_SECONDS
