"""A watch of a deployment's placements, which survives restarts of the server."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import replace
from typing import Any

import grpc

from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client.aio_status import next_response
from trimtab_client.checks import text
from trimtab_client.deployments import ServedPlacement
from trimtab_client.exceptions import (
    AbortedError,
    CallCancelledError,
    TrimtabError,
    UnavailableError,
)
from trimtab_client.retry import Attempts, Deadline, RetryPolicy
from trimtab_client.status import WATCHING, error_of_call
from trimtab_client.wire_deployments import served_placement
from trimtab_client.wire_values import version_message
from trimtab_protocol.version import Version


class Watch(Attempts):
    """The version that a reader has, and when the next call may start.

    The `max_attempts` of `retry` is ignored; the deadline is that of the whole watch. An
    InvalidArgumentError says that an argument cannot be sent.
    """

    def __init__(
        self, deployment: str, known: Version | None, retry: RetryPolicy, deadline: Deadline
    ) -> None:
        self._deployment = deployment
        self._known = known
        super().__init__(replace(retry, max_attempts=sys.maxsize), deadline)
        self.request()

    def request(self) -> Any:
        """The request of the next call."""
        name = text(self._deployment, "deployment")
        known = None if self._known is None else version_message(self._known, "known")
        return pb.WatchPlacementRequest(deployment=name, known=known)

    def news(self, response: Any) -> ServedPlacement | None:
        """The placement that the server sent; None if the reader has it."""
        self.failed = 0
        served = served_placement(response)
        if served.version == self._known:
            return None
        self._known = served.version
        return served

    def delay_after(self, failure: grpc.RpcError | None) -> float:
        """Seconds to wait after a call that failed, or that the server ended without an error.

        Raises:
            TrimtabError: there is no next call.
        """
        error: TrimtabError = UnavailableError("the server ended the watch")
        if failure is not None:
            error = error_of_call(failure, WATCHING)
        # A server that stops aborts or cancels, which is as if it was absent. The callers know
        # whether the call was cancelled on this side.
        stopped = isinstance(error, AbortedError | CallCancelledError)
        delay = self.delay(UnavailableError(str(error)) if stopped else error)
        if delay is None:
            raise error from failure
        return delay


def placements(
    watch: Watch, start: Callable[..., Any], closed: Callable[[], bool]
) -> Generator[ServedPlacement]:
    """Yield each new placement. The first call starts with the first `next`.

    `start` starts a call, given a request and a timeout. `closed` says whether the client was
    closed, which ends the calls that wait.
    """
    while True:
        call, failure = start(watch.request(), timeout=watch.timeout()), None
        try:
            while (response := next(call, None)) is not None:
                if (served := watch.news(response)) is not None:
                    yield served
        except grpc.RpcError as error:
            if closed():
                raise error_of_call(error) from error
            failure = error
        finally:
            call.cancel()
        time.sleep(watch.delay_after(failure))


async def aio_placements(
    watch: Watch, start: Callable[..., Any]
) -> AsyncGenerator[ServedPlacement]:
    """`placements` for asyncio."""
    while True:
        call, failure = start(watch.request(), timeout=watch.timeout()), None
        responses = aiter(call)
        try:
            while (response := await next_response(responses)) is not None:
                if (served := watch.news(response)) is not None:
                    yield served
        except grpc.RpcError as error:
            failure = error
        finally:
            call.cancel()
        await asyncio.sleep(watch.delay_after(failure))
