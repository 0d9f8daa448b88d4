from __future__ import annotations

import asyncio
import gc
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from itertools import count
from typing import Any

import grpc
import numpy as np
import pytest

from tests.client.service import Failure, RunningService, array_of
from tests.client.worker.server import WAIT
from trimtab.v1.solver_service_pb2_grpc import SolverServiceStub
from trimtab_client import (
    AsyncClient,
    CallCancelledError,
    Client,
    ClientClosedError,
    DeadlineExceededError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    MoveBudget,
    Placement,
    ProtocolError,
    ResourceExhaustedError,
    SolverOptions,
    Topology,
    UnavailableError,
    wire,
)
from trimtab_client.streaming import AioPump, StreamSetup

TOPOLOGY = Topology(num_replicas=6, num_gpus=2)
LOAD = np.arange(8).reshape(2, 4)
BAD_FOR_THE_CLIENT = [["x"]]
BAD_FOR_THE_SERVER = -LOAD
Connect = Callable[..., Any]


def turn_of(item: Any) -> int:
    """Which load of its stream an answer of the scripted server is for."""
    return int(item.unwrap().placement.phy2log[0, 0])


def test_there_is_a_result_for_each_load_in_their_order(client: Any) -> None:
    items = list(client.place_stream([LOAD] * 20, TOPOLOGY, max_in_flight=3))
    assert list(client.place_stream([], TOPOLOGY)) == []

    assert [item.index for item in items] == list(range(20))
    assert [turn_of(item) for item in items] == [turn % 4 for turn in range(20)]
    assert items[0].result.placement == Placement.untouched(2, 4, 6, 2)
    assert items[0].result.after.gpu_load.shape == (2, 2)


def test_the_stream_is_configured_first(service: RunningService, client: Any) -> None:
    current = Placement.untouched(2, 4, 6, 2)
    options = {"budget": MoveBudget(max_moves=1), "options": SolverOptions(effort="fast")}
    list(client.place_stream([LOAD], TOPOLOGY, current=current, **options))

    config, load = service.solver.requests
    assert config.topology.num_replicas == 6
    assert config.current.digest == current.digest
    assert config.budget.max_moves == 1
    assert config.options.effort == 1
    assert array_of(load.load).tolist() == LOAD.tolist()


@pytest.mark.parametrize("max_in_flight", [1, 2, 8])
def test_a_bad_load_does_not_affect_the_other_loads(client: Any, max_in_flight: int) -> None:
    loads = [LOAD, BAD_FOR_THE_CLIENT, LOAD, BAD_FOR_THE_SERVER, LOAD, BAD_FOR_THE_CLIENT]
    items = list(client.place_stream(loads, TOPOLOGY, max_in_flight=max_in_flight))

    assert [item.index for item in items] == list(range(6))
    assert [item.error is None for item in items] == [True, False, True, False, True, False]
    assert all(isinstance(item.error, InvalidArgumentError) for item in items[1::2])
    assert items[3].error.field_violations == (FieldViolation("load[0, 0]", "-1 is negative"),)
    with pytest.raises(InvalidArgumentError, match="dtype <U1"):
        items[1].unwrap()


def test_a_load_may_depend_on_the_result_before_it(service: RunningService, client: Any) -> None:
    consumed = [0]

    def loads() -> Iterator[np.ndarray]:
        for _ in range(5):
            yield np.full((1, 4), consumed[0])

    for item in client.place_stream(loads(), TOPOLOGY, max_in_flight=1):
        consumed[0] = item.index + 1

    sent = [array_of(request.load)[0, 0] for request in service.solver.requests[1:]]
    assert sent == [0, 1, 2, 3, 4]


def test_loads_are_sent_ahead_up_to_the_limit(service: RunningService, client: Any) -> None:
    taken = threading.Semaphore(0)

    def loads() -> Iterator[np.ndarray]:
        while True:
            taken.release()
            yield LOAD

    service.solver.release.clear()
    items = client.place_stream(loads(), TOPOLOGY, max_in_flight=3)
    first = threading.Thread(target=next, args=(items,))
    first.start()
    for _ in range(3):
        assert taken.acquire(timeout=20), "three are taken before any is answered"
    service.solver.release.set()
    first.join()
    items.close()
    service.solver.stream_over.wait()
    # The first result counts as consumed when the next is asked for, and none was.
    assert not taken.acquire(blocking=False)


@pytest.mark.parametrize("kind", [type("Mishap", (BaseException,), {}), grpc.RpcError])
def test_an_exception_of_the_iterator_reaches_the_caller_in_its_place(
    service: RunningService, client: Any, kind: type[BaseException]
) -> None:
    """Also one of gRPC, which might be mistaken for an error of the stream."""

    def loads() -> Iterator[np.ndarray]:
        yield LOAD
        yield LOAD
        raise kind("from elsewhere")

    items = client.place_stream(loads(), TOPOLOGY)

    assert [next(items).index, next(items).index] == [0, 1]
    with pytest.raises(kind, match="from elsewhere"):
        next(items)
    service.solver.stream_over.wait()


@pytest.mark.parametrize("max_in_flight", [1, 8])
@pytest.mark.parametrize("answered", [0, 2])
def test_a_failed_stream_raises_the_servers_error(
    service: RunningService, client: Any, answered: int, max_in_flight: int
) -> None:
    failure = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much", retry_after=3.0)
    service.solver.fail_stream_at = (answered, failure)
    seen: list[int] = []
    items = client.place_stream((LOAD for _ in count()), TOPOLOGY, max_in_flight=max_in_flight)

    with pytest.raises(ResourceExhaustedError, match="too much") as caught:
        seen.extend(item.index for item in items)

    assert caught.value.retry_after == 3.0
    # gRPC drops answers that it has received, but that nobody read before the error.
    assert seen == list(range(answered if max_in_flight == 1 else len(seen)))
    assert len(seen) <= answered


def test_a_stream_that_fails_while_waiting_for_a_load_raises_at_once(
    service: RunningService, client: Any
) -> None:
    service.solver.fail_stream_at = (1, Failure(grpc.StatusCode.INTERNAL, "broke"))
    consumed, over = threading.Event(), threading.Event()

    def loads() -> Iterator[np.ndarray]:
        yield LOAD
        consumed.wait()
        yield LOAD
        over.wait()

    items = client.place_stream(loads() if isinstance(client, Client) else later(loads()), TOPOLOGY)
    next(items)
    consumed.set()
    with pytest.raises(InternalError, match="broke"):
        next(items)
    over.set()


async def later(loads: Iterator[Any]) -> AsyncIterator[Any]:
    """Loads whose iterator blocks, for asyncio."""
    done = object()
    while (load := await asyncio.to_thread(next, loads, done)) is not done:
        yield load


def another_id(response: Any) -> None:
    response.id = 7


@pytest.mark.parametrize(
    ("script", "loads", "complaint"),
    [
        ({"fail_stream_at": (1, None)}, 3, "ended the stream"),
        ({"answer": another_id}, 1, "answered load 7 instead of 0"),
        ({"extra_answers": 1}, 1, "more loads than it was sent"),
    ],
    ids=["unanswered", "another load", "not asked for"],
)
def test_answers_that_do_not_fit_the_loads_break_the_contract(
    service: RunningService, client: Any, script: dict[str, Any], loads: int, complaint: str
) -> None:
    vars(service.solver).update(script)

    with pytest.raises(ProtocolError, match=complaint):
        list(client.place_stream([LOAD] * loads, TOPOLOGY))


def test_a_stream_without_server_is_unavailable(connect: Connect) -> None:
    with pytest.raises(UnavailableError):
        list(connect("unix:/nowhere").place_stream([LOAD], TOPOLOGY))


def test_a_stream_ends_at_its_timeout(service: RunningService, client: Any) -> None:
    service.solver.release.clear()

    with pytest.raises(DeadlineExceededError):
        list(client.place_stream([LOAD], TOPOLOGY, timeout=0.05))


def test_arguments_are_checked_before_the_first_load(client: Any) -> None:
    for options, field in [
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_in_flight": 1.5}, "max_in_flight"),
        ({"max_in_flight": True}, "max_in_flight"),
        ({"timeout": "3"}, "timeout"),
        ({"timeout": -1.0}, "timeout"),
        ({"current": [[0.5]]}, "current"),
    ]:
        with pytest.raises(InvalidArgumentError, match=field):
            client.place_stream([LOAD], TOPOLOGY, **options)
    with pytest.raises(TypeError, match="not iterable"):
        client.place_stream(5, TOPOLOGY)


def client_threads() -> set[threading.Thread]:
    """All threads but those of the scripted server's pool."""
    return {t for t in threading.enumerate() if not t.name.startswith("ThreadPool")}


async def tasks_that_stay() -> set[asyncio.Task[Any]]:
    """Tasks beside this one that do not end by themselves."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    return (await asyncio.wait(tasks, timeout=10))[1] if tasks else set()


@pytest.mark.parametrize("max_in_flight", [1, 8])
def test_leaving_the_loop_cancels_the_call_and_leaves_no_thread(
    service: RunningService, max_in_flight: int
) -> None:
    before = client_threads()
    with Client(service.target) as client:
        for _ in client.place_stream(
            (LOAD for _ in count()), TOPOLOGY, max_in_flight=max_in_flight
        ):
            break
        service.solver.stream_over.wait()
        for thread in client_threads() - before:
            thread.join(10)

        assert client_threads() <= before


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "dropped"])
async def test_leaving_the_loop_cancels_the_call_and_leaves_no_task(
    service: RunningService, *, closed: bool
) -> None:
    async with AsyncClient(service.target) as client:
        items = client.place_stream((LOAD for _ in count()), TOPOLOGY)
        async for _ in items:
            break
        if closed:
            await items.aclose()
            coroutines = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}
            assert not {name for name in coroutines if "Pump" in name}
        del items
        assert await asyncio.to_thread(service.solver.stream_over.wait, WAIT)

        assert await tasks_that_stay() == set()


async def test_asynchronous_loads_see_their_stream_end(service: RunningService) -> None:
    ended = asyncio.Event()

    async def loads() -> AsyncIterator[np.ndarray]:
        try:
            yield LOAD
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with AsyncClient(service.target) as client:
        async with aclosing(client.place_stream(loads(), TOPOLOGY)) as items:
            assert (await anext(items)).index == 0
        await asyncio.wait_for(ended.wait(), WAIT)


async def test_cancelling_the_consumer_is_a_cancellation(service: RunningService) -> None:
    service.solver.release.clear()

    async with AsyncClient(service.target) as client:
        items = client.place_stream([LOAD], TOPOLOGY)
        consumer = asyncio.ensure_future(anext(items))
        await asyncio.to_thread(service.solver.received.acquire)
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        assert await asyncio.to_thread(service.solver.stream_over.wait, WAIT)


async def test_the_pump_ends_silently_when_the_call_has_ended() -> None:
    async with grpc.aio.insecure_channel("unix:/nowhere") as channel:
        call = SolverServiceStub(channel).PlaceStream()
        assert await call.code() is grpc.StatusCode.UNAVAILABLE

        config = wire.stream_config(TOPOLOGY, None, None, None)
        setup = StreamSetup(config, TOPOLOGY.num_gpus, max_in_flight=1, timeout=math.inf)
        pump = AioPump(setup, [LOAD])
        await asyncio.wait_for(pump.run(call), WAIT)
        assert pump.taken.empty()


def test_closing_the_client_ends_its_streams(service: RunningService, client: Any) -> None:
    items = client.place_stream((LOAD for _ in count()), TOPOLOGY)
    next(items)
    service.solver.release.clear()
    client.close()

    with pytest.raises(CallCancelledError):
        for _ in items:
            pass


def test_a_stream_begun_after_close_is_refused(client: Any) -> None:
    items = client.place_stream([LOAD], TOPOLOGY)
    client.close()

    with pytest.raises(ClientClosedError):
        next(items)


def test_a_stream_that_is_never_begun_sends_nothing(service: RunningService, client: Any) -> None:
    client.place_stream([LOAD], TOPOLOGY)
    client.place(LOAD, TOPOLOGY)

    assert len(service.solver.requests) == 1


async def test_the_servers_status_is_raised_however_writes_race_with_it(
    service: RunningService,
) -> None:
    """Without care, grpc.aio hides it behind INTERNAL once in a hundred times."""
    failure = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=3.0)
    mishaps: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, mishap: mishaps.append(mishap))
    async with AsyncClient(service.target) as client:
        for turn in range(200):
            service.solver.fail_stream_at = (turn % 5, failure)
            with pytest.raises(ResourceExhaustedError):
                async for _ in client.place_stream((LOAD for _ in count()), TOPOLOGY):
                    pass
    gc.collect()
    assert mishaps == []
