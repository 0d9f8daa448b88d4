"""How both clients make calls. They differ only in how they wait."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakSet

from trimtab.v1.solver_service_pb2_grpc import SolverServiceStub
from trimtab.v1alpha1.deployment_service_pb2_grpc import DeploymentServiceStub
from trimtab.v1alpha1.engine_service_pb2_grpc import EngineServiceStub
from trimtab.wire.v1 import standard_pb2
from trimtab_client import channel, health, wire
from trimtab_client.exceptions import ClientClosedError
from trimtab_client.retry import DEFAULT_RETRY, Attempts, Deadline, RetryPolicy, check_timeout
from trimtab_client.status import CALL, Advice

P = ParamSpec("P")
T = TypeVar("T")


class ClientBase:
    """The channel and the stubs of a client, the defaults of its calls, and whether it is open."""

    def __init__(
        self,
        target: str = channel.DEFAULT_TARGET,
        *,
        tls: channel.TlsOptions | None = None,
        timeout: float = channel.DEFAULT_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
        max_message_bytes: int = channel.DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        self._timeout = check_timeout(timeout)
        self._retry = retry
        self._closed = False
        library = self._library()
        self._channel = channel.open_channel(library, target, tls, max_message_bytes)
        self._solver = SolverServiceStub(self._channel)
        self._service = DeploymentServiceStub(self._channel)
        self._engine = EngineServiceStub(self._channel)
        self._check = self._channel.unary_unary(**health.CHECK)
        self._streams: WeakSet[Any] = WeakSet()

    def _library(self) -> Any:
        """`grpc` or `grpc.aio`."""
        raise NotImplementedError

    def _deadline(self, timeout: float | None) -> Deadline:
        """The deadline of a call that was given `timeout`; None stands for the client's."""
        return Deadline(self._timeout if timeout is None else check_timeout(timeout))

    def _require_open(self) -> None:
        if self._closed:
            raise ClientClosedError("the client is closed: make another one")

    def _start(self, method: Any, *request: Any, timeout: float | None) -> Any:
        """Start a stream, and remember it for `close`."""
        self._require_open()
        stream = method(*request, timeout=timeout)
        self._streams.add(stream)
        return stream

    def _call(
        self,
        method: Any,
        request: Any,
        decode: Callable[[Any], T],
        timeout: float | None,
        *,
        idempotent: bool = True,
        advice: Advice = CALL,
    ) -> T:
        """Call `method` of a stub, repeat that if it may help, and decode the answer."""
        deadline = self._deadline(timeout)
        attempts = Attempts(self._retry, deadline, idempotent=idempotent, advice=advice)
        return self._repeat(method, request, decode, attempts)

    def _health(self, service: str, timeout: float | None) -> wire.ServingStatus:
        """Ask for the health of a service, once."""
        attempts = Attempts(RetryPolicy(max_attempts=1), self._deadline(timeout))
        request = standard_pb2.HealthCheckRequest(service=service)
        return self._repeat(self._check, request, wire.serving_status, attempts)

    def _repeat(self, method: Any, request: Any, decode: Callable[[Any], T], attempts: Any) -> T:
        """Call `method` until there is an answer, or `attempts` raise an error.

        In an `AsyncClient` this is a coroutine function, and so all of the above return
        coroutines, which `awaited` awaits.
        """
        raise NotImplementedError


def awaited(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The method of `AsyncClient` that makes the same call as this method of `Client`.

    `method` has to return what `_call` or `_repeat` returns. So the signature, the docstring and
    the conversion of arguments and answers are written once.
    """

    @wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        answer: Any = method(self, *args, **kwargs)
        return await answer  # type: ignore[no-any-return]

    return call
