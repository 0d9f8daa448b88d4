"""The client for threads and plain functions. `aio` has its twin for asyncio."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any, Self

import grpc
import numpy.typing as npt

from trimtab.wire.v1 import standard_pb2
from trimtab_client import health, streaming, wire
from trimtab_client.calling import T
from trimtab_client.deployment_calls import DeploymentCalls
from trimtab_client.exceptions import NotFoundError
from trimtab_client.options import MoveBudget, SolverOptions, Topology
from trimtab_client.placement import Placement
from trimtab_client.results import PackResult, PlaceResult, StreamItem
from trimtab_client.status import SOLVING
from trimtab_client.wire import ServingStatus


class Client(DeploymentCalls):
    """A connection to a Trimtab server.

    The client connects at the first call, and reconnects when the connection is lost. Any number of
    threads may share one client. A client does not survive a fork: make it in the process that uses
    it. Use it as a context manager, or call `close`.

    If the server is down, calls do not wait for it: they fail at once, are retried as `retry` says,
    and then raise UnavailableError. `wait_ready` waits.

    Every failure is a TrimtabError; `trimtab_client.exceptions` has all kinds. The `timeout` of a
    call is in seconds: None for the client's, `math.inf` for no limit. A `deployment` is given by
    its name, and NotFoundError says that there is none of that name.

    Args:
        target: "host:port", "unix:path", or any other gRPC target.
        tls: how to reach a server that speaks TLS; None for plain text.
        timeout: of each call, retries included, in seconds; `math.inf` for no limit.
        retry: when a call is tried again.
        max_message_bytes: largest message sent or received, at most 2**31 - 1.
    """

    def pack(
        self,
        weight: npt.ArrayLike,
        num_packs: int,
        *,
        item_group: npt.ArrayLike | None = None,
        options: SolverOptions | None = None,
        timeout: float | None = None,
    ) -> PackResult:
        """Pack weighted items into packs of equal item count and near-equal weight.

        Args:
            weight: [X, n], the weight of each item; each row is a problem of its own.
            num_packs: P, which divides n.
            item_group: int [X, n]; items of a row with the same group share a pack only if that
                cannot be avoided.
            options: settings of the solver.
            timeout: in seconds; None for the client's, `math.inf` for no limit.
        """
        request = wire.pack_request(weight, num_packs, item_group, options)
        return self._call(self._solver.Pack, request, wire.pack_result, timeout, advice=SOLVING)

    def place(
        self,
        load: npt.ArrayLike,
        topology: Topology,
        *,
        current: Placement | npt.ArrayLike | None = None,
        budget: MoveBudget | None = None,
        options: SolverOptions | None = None,
        timeout: float | None = None,
    ) -> PlaceResult:
        """Place the experts of all layers on GPUs.

        Args:
            load: [L, E], tokens routed to each logical expert, in any unit: a numpy array, a torch
                tensor, nested lists, or anything with `__array__`.
            topology: the slots, GPUs and nodes that experts may be placed on.
            current: the current placement, or its `phy2log` [L, R]. If given, the new placement is
                chosen so that few experts move.
            budget: if given, `current` is improved by the best few moves instead of being planned
                anew.
            options: settings of the solver.
            timeout: in seconds; None for the client's, `math.inf` for no limit.
        """
        request = wire.place_request(load, topology, current, budget, options)
        num_experts, num_gpus = request.load.shape[1], topology.num_gpus
        decode = partial(wire.place_result, num_experts=num_experts, num_gpus=num_gpus)
        return self._call(self._solver.Place, request, decode, timeout, advice=SOLVING)

    def place_stream(
        self,
        loads: Iterable[npt.ArrayLike],
        topology: Topology,
        *,
        current: Placement | npt.ArrayLike | None = None,
        budget: MoveBudget | None = None,
        options: SolverOptions | None = None,
        max_in_flight: int = 8,
        timeout: float = math.inf,
    ) -> Generator[StreamItem]:
        """Place load after load, each starting from the placement answered last.

        Results come in the order of the loads. A load that cannot be placed yields an item with
        `error` set, and the stream continues. `loads` is iterated on another thread; an exception
        that it raises is raised here, after the results of the loads before it. Leaving the loop
        early, or closing the generator, cancels the call.

        A stream is not retried, because the server holds its current placement. If the stream
        fails, answers that you have not consumed yet are lost. To continue, open another one with
        `current` set to the last placement received.

        Each load is as in `place`, and so are the other arguments; `current` is what the stream
        starts from. With a `budget`, each load improves the current placement by the best few
        moves; without, each is planned anew and aligned with it. At most `max_in_flight` loads are
        taken whose results have not been consumed: with 1, each load may depend on the result
        before it. The timeout is that of the whole stream.
        """
        self._require_open()
        config = wire.stream_config(topology, current, budget, options)
        setup = streaming.StreamSetup(config, topology.num_gpus, max_in_flight, timeout)
        start = partial(self._start, self._solver.PlaceStream, timeout=setup.timeout)
        return streaming.stream_items(start, streaming.Pump(setup, loads))

    def health(self, service: str = "", *, timeout: float | None = None) -> ServingStatus:
        """The health of the server, or of the service of this full name. Not retried."""
        try:
            return self._health(service, timeout)
        except NotFoundError:
            return ServingStatus.SERVICE_UNKNOWN

    def wait_ready(self, timeout: float | None = None, *, service: str = "") -> None:
        """Wait until the server answers, and its health or that of a service is SERVING.

        Raises:
            DeadlineExceededError: the server was not ready in time.
        """
        readiness = health.Readiness(self._deadline(timeout))
        check = partial(self._check, wait_for_ready=True)
        request = standard_pb2.HealthCheckRequest(service=service)
        return self._repeat(check, request, readiness.decode, readiness)

    def close(self) -> None:
        """Cancel all running calls, and disconnect. May be called again."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _library(self) -> Any:
        return grpc

    def _repeat(self, method: Any, request: Any, decode: Callable[[Any], T], attempts: Any) -> T:
        while True:
            self._require_open()
            try:
                return decode(method(request, timeout=attempts.timeout()))
            except grpc.RpcError as failure:
                delay = attempts.delay_after(failure)
            time.sleep(delay)
