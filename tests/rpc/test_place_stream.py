"""PlaceStream over a socket: order, chain, errors, end, cancellation, drain."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest

from tests.rpc.endpoint import (
    Endpoint,
    endpoint_of,
    failure,
    place_request,
    retry_seconds,
    skewed_load,
    violations,
)
from trimtab.v1 import placement_pb2, topology_pb2
from trimtab.v1 import solver_service_pb2 as pb
from trimtab_protocol.wire.tensors import encode_tensor

STREAM = "trimtab.v1.SolverService/PlaceStream"


def config(**fields: Any) -> pb.PlaceStreamRequest:
    topology = topology_pb2.Topology(num_replicas=20, num_gpus=4)
    return pb.PlaceStreamRequest(config=pb.PlaceStreamConfig(**{"topology": topology, **fields}))


def load(id_: int, values: np.ndarray | None = None) -> pb.PlaceStreamRequest:
    tensor = encode_tensor(skewed_load(id_) if values is None else values, "f8")
    return pb.PlaceStreamRequest(load=pb.PlaceStreamLoad(id=id_, load=tensor))


async def begun(endpoint: Endpoint, *requests: pb.PlaceStreamRequest, **options: Any) -> Any:
    """A stream, to which these messages have been sent without waiting."""
    call = endpoint.stub.PlaceStream(**options)
    for request in requests:
        await call.write(request)
    return call


async def exchange(endpoint: Endpoint, *requests: pb.PlaceStreamRequest) -> list[Any]:
    """All answers to these messages, sent without waiting, then half-closed."""
    call = await begun(endpoint, *requests)
    await call.done_writing()
    return [answer async for answer in call]


def leftovers() -> list[str]:
    """Tasks of streams that still exist."""
    running = {str(getattr(task.get_coro(), "__qualname__", "")) for task in asyncio.all_tasks()}
    return [
        name for name in running if name.endswith(("Admission.draining", "_ServicerContext.read"))
    ]


def in_force(fill: int) -> placement_pb2.Placement:
    """A placement with this in every slot."""
    return placement_pb2.Placement(phy2log=encode_tensor(np.full((1, 20), fill), "i4"))


async def test_loads_are_answered_in_order_each_from_the_answer_before(
    endpoint: Endpoint,
) -> None:
    answers = await exchange(endpoint, config(), *(load(n) for n in (1, 2, 3)))
    assert [answer.id for answer in answers] == [1, 2, 3]
    current = None
    for answer in answers:
        request = place_request(load=load(answer.id).load.load, current=current)
        assert answer.placed == await endpoint.stub.Place(request)
        current = answer.placed.placement


async def test_a_stream_may_start_from_a_placement_and_keep_to_a_budget(
    endpoint: Endpoint,
) -> None:
    first = await endpoint.stub.Place(place_request())
    budget = placement_pb2.MoveBudget(max_moves=2)
    start = config(current=first.placement, budget=budget)
    answers = await exchange(endpoint, start, load(1), load(2))
    for answer in answers:
        assert answer.placed.HasField("before")
        assert 1 <= answer.placed.moves.layer_slot_expert.shape[0] <= 2


async def test_a_bad_load_is_answered_with_its_error_and_the_stream_goes_on(
    endpoint: Endpoint,
) -> None:
    bad = skewed_load(2)
    bad[1, 5] = np.nan
    first, second, third = await exchange(endpoint, config(), load(1), load(2, bad), load(3))
    assert second.id == 2
    assert second.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [v.field for v in second.error.field_violations] == ["load[1, 5]"]
    request = place_request(load=load(3).load.load, current=first.placed.placement)
    assert third.placed == await endpoint.stub.Place(request)
    answered = endpoint.observer.named("load_answered")
    assert answered == [("OK",), ("INVALID_ARGUMENT",), ("OK",)]


async def test_a_placement_to_start_from_is_checked_on_the_solvers_thread(
    endpoint: Endpoint,
) -> None:
    async with endpoint.busy():
        call = await begun(endpoint, config(current=in_force(99)))
        await endpoint.observer.until("queue_depth", 1)
        assert not call.done()
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_placement_to_start_from_over_a_limit_is_refused() -> None:
    async with endpoint_of(max_tensor_elements=50) as endpoint:
        await failure(exchange(endpoint, config(current=in_force(99))), "RESOURCE_EXHAUSTED")


async def test_a_load_over_a_limit_and_a_full_queue_are_errors_of_that_load() -> None:
    async with endpoint_of(queue_size=1, max_tensor_elements=4096) as endpoint:
        large = load(1, np.ones((300, 16)))
        (answer,) = await exchange(endpoint, config(), large)
        assert answer.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert not answer.error.HasField("retry_delay")
        async with endpoint.busy() as release:
            waiting = endpoint.stub.Place(place_request())
            await endpoint.observer.until("queue_depth", 1)
            (answer,) = await exchange(endpoint, config(), load(1))
            release.set()
            await waiting
    assert answer.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert answer.error.HasField("retry_delay")


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([load(1)], "config"),
        ([pb.PlaceStreamRequest()], "config"),
        ([config(), load(1), config()], "config"),
        ([config(), pb.PlaceStreamRequest()], "load"),
        ([config(topology=topology_pb2.Topology(num_replicas=21))], "topology.num_gpus"),
        ([config(options=pb.SolverOptions(top_k=0))], "options.top_k"),
        ([config(current=in_force(2**31 - 1))], "current.phy2log[0, 0]"),
        ([config(current=in_force(-1))], "current.phy2log[0, 0]"),
    ],
)
async def test_a_message_out_of_place_or_a_bad_configuration_ends_the_stream(
    endpoint: Endpoint, requests: list[pb.PlaceStreamRequest], field: str
) -> None:
    error = await failure(exchange(endpoint, *requests), "INVALID_ARGUMENT")
    assert field in violations(error)


@pytest.mark.parametrize("requests", [[], [config()]], ids=["nothing", "config"])
async def test_a_stream_without_loads_ends_well(
    endpoint: Endpoint, requests: list[pb.PlaceStreamRequest]
) -> None:
    assert await exchange(endpoint, *requests) == []
    await endpoint.observer.until("call_ended", STREAM, "OK")


async def test_loads_that_wait_are_answered_after_the_caller_half_closed(
    endpoint: Endpoint,
) -> None:
    async with endpoint.busy() as release:
        call = await begun(endpoint, config(), load(1), load(2))
        await call.done_writing()
        release.set()
        assert [answer.id async for answer in call] == [1, 2]


async def test_an_answer_comes_before_the_next_load_is_sent(endpoint: Endpoint) -> None:
    call = await begun(endpoint, config())
    for n in (1, 2, 3):
        await call.write(load(n))
        assert (await call.read()).id == n
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_cancelling_a_stream_drops_the_load_that_waits_and_leaves_no_task(
    endpoint: Endpoint,
) -> None:
    async with endpoint.busy():
        call = await begun(endpoint, config(), load(1))
        await endpoint.observer.until("queue_depth", 1)
        call.cancel()
        await endpoint.observer.until("queue_rejected", "cancelled")
        await endpoint.observer.until("call_ended", STREAM, "CANCELLED")
    assert leftovers() == []
    assert endpoint.observer.named("imbalance") == []


async def test_cancelling_an_idle_stream_ends_it_and_leaves_no_task(endpoint: Endpoint) -> None:
    call = await begun(endpoint, config(), load(1))
    await call.read()
    assert leftovers() != []
    call.cancel()
    await endpoint.observer.until_any("call_ended")
    # Its messages end before its cancellation arrives.
    assert endpoint.observer.named("call_ended") in ([(STREAM, "OK")], [(STREAM, "CANCELLED")])
    assert leftovers() == []


async def test_the_deadline_of_a_stream_ends_it(endpoint: Endpoint) -> None:
    async with endpoint.busy():
        call = await begun(endpoint, config(), load(1), timeout=0.3)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await endpoint.observer.until("call_ended", STREAM, "DEADLINE_EXCEEDED")


async def test_a_draining_server_answers_the_running_load_and_ends_the_stream(
    endpoint: Endpoint,
) -> None:
    async with endpoint.busy() as release:
        call = await begun(endpoint, config(), load(1))
        await endpoint.observer.until("queue_depth", 1)
        draining = asyncio.create_task(endpoint.server.drain())
        await asyncio.sleep(0)
        release.set()
        assert (await call.read()).id == 1
    assert retry_seconds(await failure(call.read(), "UNAVAILABLE")) > 0
    await draining
    await endpoint.observer.until("call_ended", STREAM, "UNAVAILABLE")
    assert leftovers() == []


async def test_a_draining_server_ends_idle_streams(endpoint: Endpoint) -> None:
    call = await begun(endpoint, config(), load(1))
    await call.read()
    await endpoint.server.drain()
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
