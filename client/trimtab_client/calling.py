"""How each client makes a call, and repeats it. The two differ only in how they wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import grpc

from trimtab_client.aio_status import close_is_an_error
from trimtab_client.exceptions import ClientClosedError
from trimtab_client.retry import Attempts, Deadline, RetryPolicy, check_timeout

P = ParamSpec("P")
T = TypeVar("T")


class ClientBase:
    """The defaults of a client's calls, and whether the client is still open."""

    def __init__(self, timeout: float, retry: RetryPolicy) -> None:
        self._timeout = check_timeout(timeout)
        self._retry = retry
        self._closed = False

    def _deadline(self, timeout: float | None) -> Deadline:
        """The deadline of a call that was given `timeout`; None stands for the client's."""
        return Deadline(self._timeout if timeout is None else check_timeout(timeout))

    def _attempts(self, timeout: float | None, *, idempotent: bool) -> Attempts:
        return Attempts(self._retry, self._deadline(timeout), idempotent=idempotent)

    def _require_open(self) -> None:
        if self._closed:
            raise ClientClosedError("the client is closed: make another one")


class BlockingCalls(ClientBase):
    """Calls for threads."""

    def _call(
        self,
        method: Any,
        request: Any,
        decode: Callable[[Any], T],
        timeout: float | None,
        *,
        idempotent: bool = True,
    ) -> T:
        """Call `method` of a stub until it answers or may not be repeated; decode the answer."""
        attempts = self._attempts(timeout, idempotent=idempotent)
        while True:
            self._require_open()
            try:
                response = method(request, timeout=attempts.timeout())
            except grpc.RpcError as failure:
                delay = attempts.delay_after(failure)
            else:
                return decode(response)
            time.sleep(delay)


class AioCalls(ClientBase):
    """Calls for asyncio."""

    async def _call(
        self,
        method: Any,
        request: Any,
        decode: Callable[[Any], T],
        timeout: float | None,
        *,
        idempotent: bool = True,
    ) -> T:
        """See `BlockingCalls._call`."""
        attempts = self._attempts(timeout, idempotent=idempotent)
        while True:
            self._require_open()
            try:
                with close_is_an_error():
                    response = await method(request, timeout=attempts.timeout())
            except grpc.RpcError as failure:
                delay = attempts.delay_after(failure)
            else:
                return decode(response)
            await asyncio.sleep(delay)


def awaited(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The method of `AsyncClient` that makes the same call as this method of `Client`.

    `method` has to return what `self._call` or another method of both clients returns: in an
    `AsyncClient` that is a coroutine, which is awaited here. So the signature, the docstring and
    the conversion of arguments and answers are written once.
    """

    @wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        answer: Any = method(self, *args, **kwargs)
        return await answer  # type: ignore[no-any-return]

    return call
