"""Wraps every call: admits it, converts errors to statuses, counts calls and logs them."""

from __future__ import annotations

import asyncio
import inspect
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, NoReturn

import grpc
import structlog

from trimtab_server.domain.errors import SessionClosedError, TrimtabError
from trimtab_server.engine.observer import Observer
from trimtab_server.rpc.admission import SESSIONS, Admission
from trimtab_server.rpc.status import status_of

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Handler = Any  # grpc.RpcMethodHandler, whose type does not declare the behaviours
Behaviour = Callable[[Any, Any], Any]

_DEADLINE_SLACK_S = 0.1

_ABORT_S = 2.0
"""Time to send the status to a peer that may have stopped reading. Others take it at once, but on
a busy machine that may be late."""

_TOLD_ELSEWHERE = {f"{SESSIONS}/Session"}
"""Methods of which each end is logged by its name: a worker joined, left, was lost or refused."""

_CALLER_ERRORS = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
}


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of the server, unary or streaming."""

    def __init__(self, observer: Observer, admission: Admission, idle_seconds: float) -> None:
        self._observer = observer
        self._admission = admission
        self._idle_seconds = idle_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Part of grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        kind = _kind(handler)
        method = str(handler_call_details.method).removeprefix("/")
        return getattr(grpc, f"{kind}_rpc_method_handler")(
            self._wrap(method, getattr(handler, kind)),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _wrap(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def call(request: Any, context: Any) -> Any:
            started = time.perf_counter()
            self._observer.call_started(method)
            code = grpc.StatusCode.OK
            try:
                admitted = partial(self._respond, method, behaviour)
                return await _translated(method, admitted, request, context)
            except BaseException as error:
                code = _code_of(error, context)
                raise
            finally:
                seconds = time.perf_counter() - started
                self._observer.call_ended(method, code.name, seconds)
                _log_end(method, code, seconds, context)

        return call

    async def _respond(self, method: str, behaviour: Behaviour, request: Any, context: Any) -> Any:
        with self._admission.admitted(method, context.peer()):
            if not inspect.isasyncgenfunction(behaviour):
                return await behaviour(request, context)
            # The generator may own tasks, so it is closed at once, however the call ends.
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    await self._write(response, context)
        return None

    async def _write(self, response: Any, context: Any) -> None:
        try:
            async with asyncio.timeout(self._idle_seconds):
                await context.write(response)
        except TimeoutError:
            raise SessionClosedError(
                f"the client read no answer for {self._idle_seconds:g} s (setting "
                "idle_stream_seconds)"
            ) from None


async def _translated(method: str, behaviour: Behaviour, request: Any, context: Any) -> Any:
    """The answer of the behaviour. An error that it raises ends the call with its status."""
    try:
        return await _with_status(method, behaviour, request, context)
    except grpc.aio.InternalError as error:
        # The peer has gone, so nothing can be sent, and there is nobody to tell. gRPC would log a
        # traceback for each such call.
        log.debug("call ended early", method=method, reason=str(error))
        raise asyncio.CancelledError from error


async def _with_status(method: str, behaviour: Behaviour, request: Any, context: Any) -> Any:
    try:
        return await behaviour(request, context)
    except TrimtabError as error:
        await _abort(context, *status_of(error))
    except grpc.aio.BaseError:
        raise
    except Exception:
        request_id = secrets.token_hex(8)
        log.exception("unexpected error", method=method, request_id=request_id)
        said = f"internal error; see the server's log for request_id {request_id}"
        await _abort(context, grpc.StatusCode.INTERNAL, said)


async def _abort(context: Any, *status: Any) -> NoReturn:
    """End the call with this status, without waiting for a peer that does not read.

    gRPC delivers the status when the peer reads again. Here the call counts as cancelled.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_ABORT_S):
            await context.abort(*status)
    raise asyncio.CancelledError


def _kind(handler: Handler) -> str:
    request = "stream" if handler.request_streaming else "unary"
    response = "stream" if handler.response_streaming else "unary"
    return f"{request}_{response}"


def _code_of(error: BaseException, context: Any) -> grpc.StatusCode:
    if isinstance(error, grpc.aio.AbortError):
        code: grpc.StatusCode = context.code()
        return code
    # The call was cancelled, or the peer has gone. If the deadline is near, the peer gave up at
    # its own deadline, which passes earlier than ours by the time that the request travelled.
    remaining = context.time_remaining()
    if remaining is not None and remaining < _DEADLINE_SLACK_S:
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.CANCELLED


def _log_end(method: str, code: grpc.StatusCode, seconds: float, context: Any) -> None:
    emit = log.warning
    if code is grpc.StatusCode.OK or method in _TOLD_ELSEWHERE:
        emit = log.debug
    elif code in _CALLER_ERRORS:
        emit = log.info
    emit(
        "call ended",
        method=method,
        code=code.name,
        reason=context.details(),
        seconds=round(seconds, 6),
        peer=context.peer(),
    )
