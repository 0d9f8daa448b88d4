"""A watch of a deployment's placements, across servers: what is new, and when to ask again."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import replace
from typing import Any

import grpc

from trimtab_client import wire_switching as wire
from trimtab_client.aio_status import close_is_an_error
from trimtab_client.deployments import ServedPlacement
from trimtab_client.exceptions import (
    AbortedError,
    CallCancelledError,
    TrimtabError,
    UnavailableError,
)
from trimtab_client.retry import Deadline, RetryPolicy, grpc_timeout, retry_delay
from trimtab_client.status import error_of_call
from trimtab_protocol.version import Version


class Watch:
    """What a reader of placements has, and how often it has failed since.

    Args:
        deployment: its name.
        known: what the reader has; None: nothing.
        retry: the backoff; its `max_attempts` says nothing here.
        deadline: of the whole watch.

    Raises:
        InvalidArgumentError: an argument cannot be sent.
    """

    def __init__(
        self, deployment: str, known: Version | None, retry: RetryPolicy, deadline: Deadline
    ) -> None:
        self._deployment = deployment
        self._known = known
        self._retry = replace(retry, max_attempts=sys.maxsize)
        self._deadline = deadline
        self._failed = 0
        self.request()

    def request(self) -> Any:
        """What to ask the server for now."""
        return wire.watch_request(self._deployment, self._known)

    def timeout(self) -> float | None:
        """Of the next call, as gRPC wants it."""
        return grpc_timeout(self._deadline.remaining())

    def news(self, response: Any) -> ServedPlacement | None:
        """What the server says, unless it is what the reader has.

        Raises:
            ProtocolError: it cannot be read.
        """
        self._failed = 0
        served = wire.served_placement(response)
        if served.version == self._known:
            return None
        self._known = served.version
        return served

    def delay_after(self, failure: grpc.RpcError | None) -> float:
        """Seconds to wait before the next call.

        Args:
            failure: how the last one ended; None: the server just ended it.

        Raises:
            TrimtabError: there is no next call.
        """
        self._failed += 1
        error = _ended() if failure is None else error_of_call(failure)
        jitter = random.random()  # noqa: S311 - spreads load, guards nothing
        remaining = self._deadline.remaining()
        delay = retry_delay(self._retry, self._failed, _as_passing(error), remaining, jitter)
        if delay is None:
            raise error from failure
        return delay


def _ended() -> TrimtabError:
    return UnavailableError("the server ended the watch")


def _as_passing(error: TrimtabError) -> TrimtabError:
    """A server that stops cancels its calls. That they are not cancelled here, callers know."""
    passing = isinstance(error, AbortedError | CallCancelledError)
    return UnavailableError(str(error)) if passing else error


def placements(
    watch: Watch, start: Callable[[Any, float | None], Any], closed: Callable[[], bool]
) -> Generator[ServedPlacement]:
    """Each placement that is news. The first call starts with the first `next`.

    Args:
        watch: what is asked for.
        start: starts a call, of a request and a timeout.
        closed: whether the client was closed, which ends the calls that wait.
    """
    while True:
        call, failure = start(watch.request(), watch.timeout()), None
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
    watch: Watch, start: Callable[[Any, float | None], Any]
) -> AsyncGenerator[ServedPlacement]:
    """The same for asyncio."""
    while True:
        call, failure = start(watch.request(), watch.timeout()), None
        answers = aiter(call)
        try:
            while (response := await _read(answers)) is not None:
                if (served := watch.news(response)) is not None:
                    yield served
        except grpc.RpcError as error:
            failure = error
        finally:
            call.cancel()
        await asyncio.sleep(watch.delay_after(failure))


async def _read(answers: Any) -> Any:
    with close_is_an_error():
        return await anext(answers, None)
