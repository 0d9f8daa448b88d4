"""The method of SessionService: one task reads a worker's stream, one writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc
import structlog

from trimtab.v1alpha1 import session_service_pb2, session_service_pb2_grpc
from trimtab_server.domain.errors import SessionClosedError, UnavailableError, invalid
from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.deployment import Connection, Deployment
from trimtab_server.engine.deployments import Deployments
from trimtab_server.rollout.messages import Offer
from trimtab_server.rpc import session_encode as encode
from trimtab_server.rpc.gate import Gate
from trimtab_server.rpc.session_decode import decode_answer, decode_hello, decode_report

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Context = Any  # grpc.aio.ServicerContext of a stream
_T = TypeVar("_T")


class SessionServicer(session_service_pb2_grpc.SessionServiceServicer):
    """Raises the server's own errors; the interceptor makes statuses of them."""

    def __init__(self, deployments: Deployments, config: SessionConfig, gate: Gate) -> None:
        self._deployments = deployments
        self._config = config
        self._gate = gate

    # The stub knows generators only; this one reads and writes at once.
    async def Session(  # type: ignore[override]  # noqa: N802
        self, request_iterator: Any, context: Context
    ) -> None:
        """One worker, until either side has enough."""
        with self._gate.admitted():
            first = await self._read(context)
            if first is None:
                return
            if not first.HasField("hello"):
                raise invalid("hello", "has to be the first message of the stream")
            deployment, session = await self._deployments.join(decode_hello(first.hello))
            try:
                await self._converse(deployment, session, context)
            finally:
                deployment.leave(session)

    async def _converse(
        self, deployment: Deployment, session: Connection, context: Context
    ) -> None:
        """Read and write at once, until one of them ends."""
        session.mailbox.put("directive", None)
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(self._listen(deployment, session, context)),
            loop.create_task(self._speak(deployment, session, context)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _listen(self, deployment: Deployment, session: Connection, context: Context) -> None:
        """Take the worker's messages, until it says goodbye or its stream ends."""
        while (message := await self._read(context)) is not None:
            match message.WhichOneof("message"):
                case "report":
                    seq = deployment.report(session, decode_report(message.report))
                    session.mailbox.put("ack", seq)
                case "goodbye":
                    return
                case "hello":
                    raise invalid("hello", "was said already")
                case _:
                    await deployment.answer(session, decode_answer(message))

    async def _speak(self, deployment: Deployment, session: Connection, context: Context) -> None:
        """Send what comes into the mailbox; raises what it is closed with."""
        while True:
            kind, message = await session.mailbox.take()
            await context.write(self._encoded(deployment, session, kind, message))
            if kind == "drain":
                raise UnavailableError("the server is shutting down", message)

    def _encoded(
        self, deployment: Deployment, session: Connection, kind: str, message: Any
    ) -> session_service_pb2.SessionResponse:
        term, config = self._deployments.term, self._config
        match kind:
            case "directive":
                return encode.encode_directive(term, config.report_seconds, config.lease_seconds)
            case "ack":
                return encode.encode_ack(term, message)
            case "drain":
                return encode.encode_drain(term, message)
            case _ if isinstance(message, Offer):
                return encode.encode_offer(term, message, deployment.contents(message, session))
            case _:
                return encode.encode_order(term, message)

    async def _read(self, context: Context) -> Any:
        """The next message; None at the end of the stream."""
        message = await self._in_time(context.read())
        return None if message is grpc.aio.EOF else message

    async def _in_time(self, reading: Awaitable[_T]) -> _T:
        seconds = self._config.lease_seconds
        try:
            return await asyncio.wait_for(reading, seconds)
        except TimeoutError:
            raise SessionClosedError(f"no message came for {seconds:g} s") from None
