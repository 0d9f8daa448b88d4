"""Finds out how a call of grpc.aio really ended, where grpc.aio itself is misleading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from trimtab_client.exceptions import CallCancelledError

_HIDDEN = "Internal error from Core"
_POLL_SECONDS = 0.001
_MAX_POLLS = 500


@contextmanager
def close_is_an_error() -> Iterator[None]:
    """Raise CallCancelledError if a call ends because the client was closed.

    grpc.aio then raises `asyncio.CancelledError`, as if the task had been cancelled. A task
    that is really being cancelled still gets that.
    """
    try:
        yield
    except asyncio.CancelledError as cancelled:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise CallCancelledError("the client was closed while the call ran") from cancelled


async def next_response(responses: AsyncIterator[Any]) -> Any:
    """The next response of a stream; None at its end. Errors are those of `close_is_an_error`."""
    with close_is_an_error():
        return await anext(responses, None)


async def reveal(call: Any, failure: grpc.RpcError) -> grpc.RpcError:
    """The failure with the server's own status, if a failed write hides it.

    grpc.aio reports INTERNAL if a write fails while the server ends the call
    (github.com/grpc/grpc/issues/36066). Once all answers are read, the server's status replaces
    it, but without any notification: so this function polls. A later write would hide it again:
    the caller has to stop writing as soon as the call is done.
    """
    for _ in range(_MAX_POLLS):
        if failure.details() != _HIDDEN:
            break
        await asyncio.sleep(_POLL_SECONDS)
        failure = grpc.aio.AioRpcError(
            await call.code(),
            await call.initial_metadata(),
            await call.trailing_metadata(),
            await call.details(),
        )
    return failure
