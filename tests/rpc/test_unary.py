"""Pack and Place: answers, bad input, limits, deadlines and cancellation, over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from tests.rpc.endpoint import (
    Endpoint,
    endpoint_of,
    failure,
    pack_request,
    place_request,
    retry_seconds,
    rich_status,
    skewed_load,
    violations,
)
from trimtab.v1 import solver_service_pb2 as pb
from trimtab.v1 import tensor_pb2, topology_pb2
from trimtab.v1.placement_pb2 import MoveBudget, Placement
from trimtab_protocol.wire.tensors import encode_tensor
from trimtab_server.domain.errors import DeadlineExceededError
from trimtab_server.domain.placement import placement_of
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.config import Limits
from trimtab_server.engine.planner import Planner
from trimtab_server.rpc.decode import decode_tensor
from trimtab_server.rpc.servicer import SolverServicer
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.solver.evaluate import evaluate
from trimtab_server.solver.packing import balanced_packing
from trimtab_server.solver.plan import place
from trimtab_server.solver.settings import settings_for

PLACE = "trimtab.v1.SolverService/Place"


async def test_pack_answers_what_the_solver_packs(endpoint: Endpoint) -> None:
    groups = np.arange(48).reshape(3, 16) % 5
    options = pb.SolverOptions(seed=7, top_k=2, max_iterations=-1, restarts=3)
    request = pack_request(item_group=encode_tensor(groups, "i8"), options=options)
    answer = await endpoint.stub.Pack(request)
    index, rank = balanced_packing(
        skewed_load(), 4, item_group=groups, seed=7, top_k=2, max_iterations=None, restarts=3
    )
    np.testing.assert_array_equal(decode_tensor(answer.pack_index, "pack_index"), index)
    np.testing.assert_array_equal(decode_tensor(answer.rank_in_pack, "rank_in_pack"), rank)


async def test_place_answers_placement_digest_and_balance(endpoint: Endpoint) -> None:
    answer = await endpoint.stub.Place(place_request())
    plan = place(skewed_load(), Topology(20, 4), settings=settings_for("fast"))
    phy2log = decode_tensor(answer.placement.phy2log, "phy2log")
    np.testing.assert_array_equal(phy2log, plan.phy2log)
    assert answer.placement.phy2log.data_type == tensor_pb2.DATA_TYPE_INT32
    assert answer.placement.digest == placement_of(plan.phy2log, 16, 4).digest
    gpu_load = decode_tensor(answer.after.gpu_load, "gpu_load")
    np.testing.assert_array_equal(gpu_load, plan.after.gpu_load)
    bound = evaluate(plan.phy2log, skewed_load(), 4).bound
    for tensor, expected in (
        (answer.after.imbalance, plan.after.imbalance),
        (answer.after.bound, bound),
    ):
        np.testing.assert_array_equal(np.frombuffer(tensor.data), expected)
        assert (list(tensor.shape), tensor.data_type) == ([3], tensor_pb2.DATA_TYPE_FLOAT64)
    assert not answer.HasField("before")
    assert not answer.HasField("moves")


async def test_place_from_a_current_placement_answers_moves(endpoint: Endpoint) -> None:
    first = await endpoint.stub.Place(place_request())
    load = encode_tensor(skewed_load(1), "f8")
    budget = MoveBudget(max_moves=3)
    request = place_request(load=load, current=first.placement, budget=budget)
    answer = await endpoint.stub.Place(request)
    moves = decode_tensor(answer.moves.layer_slot_expert, "moves")
    assert 1 <= len(moves) <= 3
    phy2log = decode_tensor(answer.placement.phy2log, "phy2log")
    for layer, slot, expert in moves:
        assert phy2log[layer, slot] == expert
    assert answer.moves.source_gpus.shape[0] == len(moves)
    assert max(np.frombuffer(answer.after.imbalance.data)) <= max(
        np.frombuffer(answer.before.imbalance.data)
    )
    assert answer.before.bound == answer.after.bound


async def test_no_move_is_an_answer_with_empty_moves(endpoint: Endpoint) -> None:
    first = await endpoint.stub.Place(place_request())
    budget = MoveBudget(max_moves=0)
    answer = await endpoint.stub.Place(place_request(current=first.placement, budget=budget))
    assert answer.HasField("moves")
    assert not answer.moves.HasField("layer_slot_expert")
    assert answer.placement == first.placement


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8"])
async def test_loads_of_every_data_type_are_taken(endpoint: Endpoint, dtype: str) -> None:
    counts = skewed_load().round()
    answer = await endpoint.stub.Place(place_request(load=encode_tensor(counts, dtype)))
    plan = place(counts, Topology(20, 4), settings=settings_for("fast"))
    np.testing.assert_array_equal(decode_tensor(answer.placement.phy2log, "p"), plan.phy2log)


def changed(index: tuple[int, int], value: float) -> tensor_pb2.Tensor:
    load = skewed_load()
    load[index] = value
    return encode_tensor(load, "f8")


def topology(*numbers: int) -> topology_pb2.Topology:
    names = ("num_replicas", "num_gpus", "num_nodes", "num_groups")
    return topology_pb2.Topology(**dict(zip(names, numbers, strict=False)))


def current(entry: int = 0, slots: int = 20, digest: bytes = b"") -> Placement:
    phy2log = np.arange(3 * slots).reshape(3, slots) % slots % 16
    phy2log[0, 19 % slots] = entry
    return Placement(phy2log=encode_tensor(phy2log, "i4"), digest=digest)


BAD_PLACE: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"load": None}, {"load": "required"}),
    ({"load": tensor_pb2.Tensor(shape=[1, 1])}, {"load.data_type": "0"}),
    ({"load": changed((0, 3), -1.0)}, {"load[0, 3]": "-1.0 is negative"}),
    ({"load": changed((2, 7), np.nan)}, {"load[2, 7]": "nan is not finite"}),
    ({"load": changed((1, 0), np.inf)}, {"load[1, 0]": "inf is not finite"}),
    (
        {"topology": None},
        {"topology.num_replicas": "0 is below 1", "topology.num_gpus": "0 is below 1"},
    ),
    ({"topology": topology(20, 0)}, {"topology.num_gpus": "0 is below 1"}),
    ({"topology": topology(21, 4)}, {"topology.num_replicas": "21 is not a multiple"}),
    ({"topology": topology(20, 4, 3)}, {"topology.num_gpus": "4 is not a multiple"}),
    ({"topology": topology(20, 4, 2, 3)}, {"topology.num_groups": "3 is not a multiple"}),
    ({"topology": topology(20, 4, 1, 3)}, {"topology.num_groups": "3 does not divide"}),
    ({"topology": topology(12, 4)}, {"topology.num_replicas": "cannot hold 16"}),
    ({"options": pb.SolverOptions(top_k=0)}, {"options.top_k": "0 is below 1"}),
    ({"options": pb.SolverOptions(restarts=0)}, {"options.restarts": "0 is below 1"}),
    ({"options": pb.SolverOptions(max_iterations=-2)}, {"options.max_iterations": "-2"}),
    ({"options": pb.SolverOptions(effort=9)}, {"options.effort": "9"}),
    ({"options": pb.SolverOptions(objective=9)}, {"options.objective": "9"}),
    ({"budget": MoveBudget()}, {"budget": "current"}),
    ({"current": current(), "budget": MoveBudget(min_gain=-1)}, {"budget.min_gain": "-1.0"}),
    (
        {"current": current(), "budget": MoveBudget(cross_node_cost=0.5)},
        {"budget.cross_node_cost": "0.5"},
    ),
    ({"current": Placement()}, {"current.phy2log": "required"}),
    ({"current": current(slots=16)}, {"current.phy2log.shape": "num_replicas = 20"}),
    ({"current": current(entry=16)}, {"current.phy2log[0, 19]": "16 is not an expert"}),
    ({"current": current(entry=-1)}, {"current.phy2log[0, 19]": "-1 is not an expert"}),
    (
        {"current": Placement(phy2log=encode_tensor(np.ones((3, 20)), "f8"))},
        {"current.phy2log.data_type": "float64"},
    ),
    ({"current": current(digest=b"x" * 32)}, {"current.digest": "78" * 32}),
    (
        {"current": current(), "load": encode_tensor(skewed_load(layers=2), "f8")},
        {"load": "3 layers of 16"},
    ),
    (
        {"load": None, "topology": topology(21, 4), "options": pb.SolverOptions(top_k=0)},
        {"load": "required", "topology.num_replicas": "21", "options.top_k": "0"},
    ),
]


BAD_PACK: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"weight": None}, {"weight": "required"}),
    ({"weight": changed((0, 3), -1.0)}, {"weight[0, 3]": "-1.0 is negative"}),
    ({"num_packs": 0}, {"num_packs": "0 is below 1"}),
    ({"num_packs": 5}, {"num_packs": "5 does not divide 16"}),
    ({"item_group": encode_tensor(np.ones((3, 16)), "f8")}, {"item_group": "integer"}),
    ({"item_group": encode_tensor(np.ones((3, 15)), "i4")}, {"item_group": "(3, 15)"}),
    ({"options": pb.SolverOptions(top_k=0)}, {"options.top_k": "0 is below 1"}),
]


@pytest.mark.parametrize(
    ("method", "request_of", "changes", "expected"),
    [
        *(("Place", place_request, *case) for case in BAD_PLACE),
        *(("Pack", pack_request, *case) for case in BAD_PACK),
    ],
)
async def test_an_error_names_every_field_at_fault_with_its_value(
    endpoint: Endpoint,
    method: str,
    request_of: Callable[..., Any],
    changes: dict[str, Any],
    expected: dict[str, str],
) -> None:
    call = getattr(endpoint.stub, method)(request_of(**changes))
    error = await failure(call, "INVALID_ARGUMENT")
    found = violations(error)
    assert found.keys() == expected.keys()
    for field, part in expected.items():
        assert part in found[field]
        assert field in (error.details() or "")


async def test_a_digest_that_matches_is_accepted(endpoint: Endpoint) -> None:
    phy2log = decode_tensor(current().phy2log, "p").copy()
    digest = placement_of(phy2log, 16, 4).digest
    answer = await endpoint.stub.Place(place_request(current=current(digest=digest)))
    assert answer.HasField("before")


@pytest.mark.parametrize(
    "options", [pb.SolverOptions(restarts=65), pb.SolverOptions(top_k=65)], ids=str
)
async def test_a_request_over_a_limit_is_refused_without_a_time_to_retry(
    endpoint: Endpoint, options: pb.SolverOptions
) -> None:
    call = endpoint.stub.Place(place_request(options=options))
    error = await failure(call, "RESOURCE_EXHAUSTED")
    assert not rich_status(error).details


async def test_a_full_queue_answers_when_to_try_again() -> None:
    async with endpoint_of(queue_size=1) as endpoint, endpoint.busy() as release:
        waiting = endpoint.stub.Place(place_request())
        await endpoint.observer.until("queue_depth", 1)
        await endpoint.observer.until("call_started", PLACE)
        error = await failure(endpoint.stub.Place(place_request()), "RESOURCE_EXHAUSTED")
        release.set()
        await waiting
    assert retry_seconds(error) > 0


async def test_calls_over_the_limit_are_refused_and_health_checks_are_not_counted() -> None:
    async with endpoint_of(max_concurrent_rpcs=1) as endpoint, endpoint.busy() as release:
        running = endpoint.stub.Place(place_request())
        await endpoint.observer.until("call_started", PLACE)
        error = await failure(endpoint.stub.Pack(pack_request()), "RESOURCE_EXHAUSTED")
        release.set()
        await running
        await endpoint.stub.Pack(pack_request())
    assert retry_seconds(error) > 0


async def test_a_call_cancelled_while_it_waits_is_not_carried_out(endpoint: Endpoint) -> None:
    async with endpoint.busy():
        call = endpoint.stub.Place(place_request())
        await endpoint.observer.until("call_started", PLACE)
        call.cancel()
        await endpoint.observer.until("queue_rejected", "cancelled")
        await endpoint.observer.until("call_ended", PLACE, "CANCELLED")
    await endpoint.stub.Pack(pack_request())
    assert endpoint.observer.named("imbalance") == []


async def test_a_call_whose_deadline_passes_while_it_waits_is_not_carried_out(
    endpoint: Endpoint,
) -> None:
    async with endpoint.busy():
        call = endpoint.stub.Place(place_request(), timeout=0.2)
        await failure(call, "DEADLINE_EXCEEDED")
        await endpoint.observer.until("call_ended", PLACE, "DEADLINE_EXCEEDED")
    await endpoint.stub.Pack(pack_request())
    assert endpoint.observer.named("imbalance") == []


async def test_a_message_over_the_limit_is_refused() -> None:
    async with endpoint_of(max_message_bytes=4096) as endpoint:
        large = encode_tensor(np.ones((64, 16)), "f8")
        await failure(endpoint.stub.Place(place_request(load=large)), "RESOURCE_EXHAUSTED")
        await endpoint.stub.Place(place_request())


async def test_an_unexpected_error_answers_an_id_that_the_log_has(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("trimtab_server.engine.planner.pack", broken)
    with capture_logs() as logs:
        error = await failure(endpoint.stub.Pack(pack_request()), "INTERNAL")
    details = error.details() or ""
    (event,) = (entry for entry in logs if entry["event"] == "unexpected error")
    assert event["request_id"] in details
    assert event["exc_info"]
    assert "secret" not in details


async def test_calls_are_reported_by_method_and_code(endpoint: Endpoint) -> None:
    await endpoint.stub.Place(place_request())
    await failure(endpoint.stub.Place(place_request(load=None)), "INVALID_ARGUMENT")
    await endpoint.observer.until("call_ended", PLACE, "INVALID_ARGUMENT")
    assert endpoint.observer.named("call_ended") == [(PLACE, "OK"), (PLACE, "INVALID_ARGUMENT")]


async def test_methods_that_do_not_exist_are_unimplemented_and_not_reported(
    endpoint: Endpoint,
) -> None:
    unknown = endpoint.channel.unary_unary("/trimtab.v1.SolverService/Nothing")
    await failure(unknown(b""), "UNIMPLEMENTED")
    assert endpoint.observer.events == []


async def test_many_calls_at_once_are_all_answered(endpoint: Endpoint) -> None:
    answers = await asyncio.gather(*(endpoint.stub.Place(place_request()) for _ in range(20)))
    assert len({answer.placement.digest for answer in answers}) == 1


async def test_a_placement_of_other_layers_than_the_load_is_refused_before_it_is_looked_at(
    endpoint: Endpoint,
) -> None:
    load = encode_tensor(skewed_load(layers=1), "f8")
    tall = Placement(phy2log=encode_tensor(np.zeros((10_000, 20)), "i4"))
    call = endpoint.stub.Place(place_request(load=load, current=tall))
    # Looked at, it would be faulted for the experts that it lacks.
    assert violations(await failure(call, "INVALID_ARGUMENT")).keys() == {"load"}
    assert endpoint.observer.named("queue_depth") == []


async def test_a_placement_over_a_limit_is_refused_before_it_is_looked_at() -> None:
    async with endpoint_of(max_tensor_elements=100) as endpoint:
        call = endpoint.stub.Place(place_request(current=current(entry=99)))
        await failure(call, "RESOURCE_EXHAUSTED")


async def test_a_placement_in_force_is_checked_on_the_solvers_thread(endpoint: Endpoint) -> None:
    async with endpoint.busy():
        call = endpoint.stub.Place(place_request(current=current(entry=99)))
        await endpoint.observer.until("queue_depth", 1)
        assert not call.done()
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["Place", "Pack"])
async def test_a_call_that_is_out_of_time_is_not_started_although_nothing_cancels_it(
    endpoint: Endpoint, method: str
) -> None:
    class OutOfTime:
        def time_remaining(self) -> float:
            return 0.0

    # gRPC cancels such a call as well, but only when the event loop gets to it.
    planner = Planner(
        endpoint.queue, Reference(), torch.device("cpu"), Limits(), "fast", endpoint.observer
    )
    servicer = SolverServicer(
        planner, endpoint.server.admission, endpoint.observer, idle_seconds=60
    )
    request = place_request() if method == "Place" else pack_request()
    with pytest.raises(DeadlineExceededError):
        await getattr(servicer, method)(request, OutOfTime())
    await endpoint.observer.until("queue_rejected", "deadline")
    assert endpoint.observer.named("solved") == []


async def test_an_answer_over_the_limit_is_not_sent() -> None:
    # An item takes 4 bytes in the request and 8 in the answer.
    request = pack_request(weight=encode_tensor(np.ones((1, 1024)), "f4"))
    async with endpoint_of(max_message_bytes=6000) as endpoint:
        await failure(endpoint.stub.Pack(request), "RESOURCE_EXHAUSTED")
