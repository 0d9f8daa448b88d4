"""The client for asyncio: the twin of `client.Client`, call for call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast
from weakref import WeakSet

import grpc
import numpy.typing as npt

from trimtab.v1.solver_service_pb2_grpc import SolverServiceStub
from trimtab.v1alpha1.deployment_service_pb2_grpc import DeploymentServiceStub
from trimtab_client import aio_stream, health, wire
from trimtab_client.aio_operating import AioOperating
from trimtab_client.aio_status import close_is_an_error
from trimtab_client.channel import (
    DEFAULT_MAX_MESSAGE_BYTES,
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT,
    TlsOptions,
    open_channel,
)
from trimtab_client.exceptions import TrimtabError
from trimtab_client.options import MoveBudget, SolverOptions, Topology
from trimtab_client.placement import Placement
from trimtab_client.results import PackResult, PlaceResult, StreamItem
from trimtab_client.retry import DEFAULT_RETRY, Deadline, RetryPolicy, grpc_timeout
from trimtab_client.wire import ServingStatus

if TYPE_CHECKING:
    from trimtab.v1.solver_service_pb2_grpc import SolverServiceAsyncStub
    from trimtab.v1alpha1.deployment_service_pb2_grpc import DeploymentServiceAsyncStub


class AsyncClient(AioOperating):
    """`Client` for asyncio: the same calls and arguments, awaited.

    It belongs to the event loop that runs when it is made. Use it as an asynchronous
    context manager, or await `close`.

    Args:
        target: as in `Client`, as are all others.
        tls: how to reach a server that speaks TLS; None: plain text.
        timeout: of each call, retries included, in seconds; `math.inf`: no limit.
        retry: when a call is tried again.
        max_message_bytes: largest message sent or received, at most 2**31 - 1.

    Raises:
        RuntimeError: no event loop runs.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        tls: TlsOptions | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        super().__init__(timeout, retry)
        asyncio.get_running_loop()
        self._channel = open_channel(
            grpc.aio.insecure_channel, grpc.aio.secure_channel, target, tls, max_message_bytes
        )
        # One class each at run time; only its type has an asynchronous twin.
        self._solver = cast("SolverServiceAsyncStub", SolverServiceStub(self._channel))
        self._deployments = cast("DeploymentServiceAsyncStub", DeploymentServiceStub(self._channel))
        self._check = self._channel.unary_unary(**health.CHECK)
        self._streams: WeakSet[Any] = WeakSet()

    async def pack(
        self,
        weight: npt.ArrayLike,
        num_packs: int,
        *,
        item_group: npt.ArrayLike | None = None,
        options: SolverOptions | None = None,
        timeout: float | None = None,
    ) -> PackResult:
        """Pack weighted items into packs of near-equal weight. See `Client.pack`."""
        request = wire.pack_request(weight, num_packs, item_group, options)
        return wire.pack_result(await self._call(self._solver.Pack, request, timeout))

    async def place(
        self,
        load: npt.ArrayLike,
        topology: Topology,
        *,
        current: Placement | npt.ArrayLike | None = None,
        budget: MoveBudget | None = None,
        options: SolverOptions | None = None,
        timeout: float | None = None,
    ) -> PlaceResult:
        """Place the experts of all layers on GPUs. See `Client.place`."""
        request = wire.place_request(load, topology, current, budget, options)
        response = await self._call(self._solver.Place, request, timeout)
        return wire.place_result(response, request.load.shape[1], topology.num_gpus)

    def place_stream(
        self,
        loads: aio_stream.Loads,
        topology: Topology,
        *,
        current: Placement | npt.ArrayLike | None = None,
        budget: MoveBudget | None = None,
        options: SolverOptions | None = None,
        max_in_flight: int = 8,
        timeout: float = math.inf,
    ) -> AsyncGenerator[StreamItem]:
        """Place again and again. See `Client.place_stream`.

        `loads` may be asynchronous or plain; it is iterated in a task of its own, on
        the event loop, so a plain one must not block. To leave the loop early and be
        sure that the call is cancelled at once, use `contextlib.aclosing`.
        """
        setup = self._stream_setup(topology, current, budget, options, max_in_flight, timeout)
        pump = aio_stream.Pump(setup, loads)

        def start() -> Any:
            self._require_open()
            call = self._solver.PlaceStream(timeout=setup.timeout)
            self._streams.add(call)
            return call

        return aio_stream.stream_items(start, pump, setup.num_gpus)

    async def health(self, service: str = "", *, timeout: float | None = None) -> ServingStatus:
        """What the server says about itself or a service. See `Client.health`."""
        deadline = Deadline(self._timeout_of(timeout))
        return await self._health(service, deadline, wait_for_ready=False)

    async def wait_ready(self, timeout: float | None = None, *, service: str = "") -> None:
        """Wait until the server is there and SERVING. See `Client.wait_ready`."""
        readiness = health.Readiness(self._timeout_of(timeout))
        while True:
            outcome = await self._outcome(service, readiness.deadline)
            if readiness.ended_by(outcome):
                return
            await asyncio.sleep(health.POLL_SECONDS)

    async def close(self) -> None:
        """Cancel what is under way, and disconnect. May be called again."""
        self._closed = True
        # Older versions of grpc.aio let a stream run on that no task waits for.
        for call in tuple(self._streams):
            call.cancel()
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _health(
        self, service: str, deadline: Deadline, *, wait_for_ready: bool
    ) -> ServingStatus:
        self._require_open()
        request = wire.health_request(service)
        limit = grpc_timeout(deadline.remaining())
        try:
            with close_is_an_error():
                response = await self._check(request, timeout=limit, wait_for_ready=wait_for_ready)
        except grpc.RpcError as failure:
            return health.status_of_failure(failure)
        return wire.serving_status(response)

    async def _outcome(self, service: str, deadline: Deadline) -> ServingStatus | TrimtabError:
        try:
            return await self._health(service, deadline, wait_for_ready=True)
        except TrimtabError as error:
            return error
