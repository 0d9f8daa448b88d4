"""What both clients do beside talking to the server."""

from __future__ import annotations

import grpc
import numpy.typing as npt

from trimtab_client import wire
from trimtab_client.checks import integer
from trimtab_client.exceptions import ClientClosedError
from trimtab_client.options import MoveBudget, SolverOptions, Topology
from trimtab_client.placement import Placement
from trimtab_client.retry import RetryPolicy, check_timeout, grpc_timeout
from trimtab_client.status import error_of_call
from trimtab_client.streaming import Setup


class ClientBase:
    """Defaults and checks of the calls, and whether the client is still open."""

    def __init__(self, timeout: float, retry: RetryPolicy) -> None:
        self._timeout = check_timeout(timeout)
        self._retry = retry
        self._closed = False

    def _timeout_of(self, timeout: float | None) -> float:
        """The timeout of a call that asked for `timeout`, in seconds."""
        return self._timeout if timeout is None else check_timeout(timeout)

    def _require_open(self) -> None:
        if self._closed:
            raise ClientClosedError("the client is closed: make another one")

    def _stream_setup(
        self,
        topology: Topology,
        current: Placement | npt.ArrayLike | None,
        budget: MoveBudget | None,
        options: SolverOptions | None,
        max_in_flight: int,
        timeout: float,
    ) -> Setup:
        """The checked arguments of `place_stream`.

        Raises:
            ClientClosedError: the client is closed.
            InvalidArgumentError: an argument cannot be sent.
        """
        self._require_open()
        return Setup(
            config=wire.stream_config(topology, current, budget, options),
            max_in_flight=integer(max_in_flight, "max_in_flight", low=1),
            timeout=grpc_timeout(check_timeout(timeout)),
            num_gpus=topology.num_gpus,
        )


def require_turned_away(failure: grpc.RpcError) -> None:
    """Allow another attempt at a call that must not be carried out twice.

    Only where the server says when to come back has it certainly done nothing that lasts. A
    connection that broke tells nothing about what the server did.

    Raises:
        TrimtabError: the server did not say so.
    """
    error = error_of_call(failure)
    if getattr(error, "retry_after", None) is None:
        raise error from failure
