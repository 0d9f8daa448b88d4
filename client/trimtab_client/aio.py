"""The client for asyncio: the twin of `client.Client`, call for call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, Self

import grpc
import numpy.typing as npt

from trimtab_client import streaming, watching, wire
from trimtab_client.aio_status import close_is_an_error
from trimtab_client.calling import ClientBase, T, awaited
from trimtab_client.client import Client
from trimtab_client.deployments import ServedPlacement
from trimtab_client.exceptions import NotFoundError
from trimtab_client.options import MoveBudget, SolverOptions, Topology
from trimtab_client.placement import Placement
from trimtab_client.results import StreamItem
from trimtab_client.wire import ServingStatus
from trimtab_protocol.version import Version


class AsyncClient(ClientBase):
    """`Client` for asyncio: the same calls and arguments, awaited.

    It belongs to the event loop that runs when it is made. Use `async with`, or await `close`.

    Raises:
        RuntimeError: no event loop is running.
    """

    pack = awaited(Client.pack)
    place = awaited(Client.place)
    wait_ready = awaited(Client.wait_ready)

    server_status = awaited(Client.server_status)
    create_deployment = awaited(Client.create_deployment)
    get_deployment = awaited(Client.get_deployment)
    deployments = awaited(Client.deployments)
    update_policy = awaited(Client.update_policy)
    delete_deployment = awaited(Client.delete_deployment)
    decisions = awaited(Client.decisions)
    operations = awaited(Client.operations)
    get_placement = awaited(Client.get_placement)
    trigger = awaited(Client.trigger)
    pause = awaited(Client.pause)
    resume = awaited(Client.resume)
    forget_load = awaited(Client.forget_load)
    pin = awaited(Client.pin)
    unpin = awaited(Client.unpin)
    roll_back = awaited(Client.roll_back)

    def place_stream(
        self,
        loads: streaming.AioLoads,
        topology: Topology,
        *,
        current: Placement | npt.ArrayLike | None = None,
        budget: MoveBudget | None = None,
        options: SolverOptions | None = None,
        max_in_flight: int = 8,
        timeout: float = math.inf,
    ) -> AsyncGenerator[StreamItem]:
        """Place load after load. See `Client.place_stream`.

        `loads` may be asynchronous or plain. It is iterated in a task of its own, on
        the event loop, so a plain one must not block. To leave the loop early and be
        sure that the call is cancelled at once, use `contextlib.aclosing`.
        """
        self._require_open()
        config = wire.stream_config(topology, current, budget, options)
        setup = streaming.StreamSetup(config, topology.num_gpus, max_in_flight, timeout)
        start = partial(self._start, self._solver.PlaceStream, timeout=setup.timeout)
        return streaming.aio_stream_items(start, streaming.AioPump(setup, loads))

    def watch_placement(
        self, deployment: str, known: Version | None = None, *, timeout: float = math.inf
    ) -> AsyncGenerator[ServedPlacement]:
        """Yield each placement that comes into force. See `Client.watch_placement`.

        To leave the loop early and be sure that the call is cancelled at once, use
        `contextlib.aclosing`.
        """
        self._require_open()
        watch = watching.Watch(deployment, known, self._retry, self._deadline(timeout))
        return watching.aio_placements(watch, partial(self._start, self._service.WatchPlacement))

    async def health(self, service: str = "", *, timeout: float | None = None) -> ServingStatus:
        """The health of the server or of a service. See `Client.health`."""
        check: Any = self._health(service, timeout)
        try:
            return await check  # type: ignore[no-any-return]
        except NotFoundError:
            return ServingStatus.SERVICE_UNKNOWN

    async def close(self) -> None:
        """Cancel all running calls, and disconnect. May be called again."""
        self._closed = True
        # Older versions of grpc.aio let a stream continue if no task waits for it.
        for stream in tuple(self._streams):
            stream.cancel()
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _library(self) -> Any:
        asyncio.get_running_loop()
        return grpc.aio

    async def _repeat(  # type: ignore[override]  # see `ClientBase`
        self, method: Any, request: Any, decode: Callable[[Any], T], attempts: Any
    ) -> T:
        while True:
            self._require_open()
            try:
                with close_is_an_error():
                    response = await method(request, timeout=attempts.timeout())
                return decode(response)
            except grpc.RpcError as failure:
                delay = attempts.delay_after(failure)
            await asyncio.sleep(delay)
