from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from tests.client.service import Failure, RunningService, array_of, serving, tensor_of
from trimtab.v1 import solver_service_pb2, tensor_pb2
from trimtab_client import (
    CallCancelledError,
    ClientClosedError,
    DeadlineExceededError,
    FieldViolation,
    InvalidArgumentError,
    MoveBudget,
    Placement,
    ProtocolError,
    ResourceExhaustedError,
    RetryPolicy,
    SolverOptions,
    Topology,
    TrimtabError,
    UnavailableError,
)

TOPOLOGY = Topology(num_replicas=6, num_gpus=2)
LOAD = np.arange(8).reshape(2, 4)
Connect = Callable[..., Any]
UNAVAILABLE = Failure(grpc.StatusCode.UNAVAILABLE)


def test_place_sends_all_it_was_given(service: RunningService, client: Any) -> None:
    current = Placement.untouched(2, 4, 8, 4)

    client.place(
        LOAD,
        Topology(8, 4, num_nodes=2, num_groups=2),
        current=current,
        budget=MoveBudget(max_moves_per_layer=3, max_moves=0, min_gain=0.25, cross_node_cost=2.0),
        options=SolverOptions(
            effort="balanced", seed=-1, objective="range", top_k=5, max_iterations=-1, restarts=6
        ),
    )

    [request] = service.solver.requests
    assert array_of(request.load).tolist() == LOAD.tolist()
    assert array_of(request.current.phy2log).tolist() == current.phy2log.tolist()
    request.ClearField("load")
    request.current.ClearField("phy2log")
    assert request == solver_service_pb2.PlaceRequest(
        topology={"num_replicas": 8, "num_gpus": 4, "num_nodes": 2, "num_groups": 2},
        current={"digest": current.digest},
        budget={
            "max_moves_per_layer": 3,
            "max_moves": 0,
            "min_gain": 0.25,
            "cross_node_cost": 2.0,
        },
        options={
            "effort": "EFFORT_BALANCED",
            "seed": 2**64 - 1,
            "objective": "OBJECTIVE_RANGE",
            "top_k": 5,
            "max_iterations": -1,
            "restarts": 6,
        },
    )


def test_place_sends_nothing_that_it_was_not_given(service: RunningService, client: Any) -> None:
    client.place(LOAD, TOPOLOGY)
    client.place(LOAD, TOPOLOGY, budget=MoveBudget(), options=SolverOptions())

    bare, empty = service.solver.requests
    assert {field.name for field, _ in bare.ListFields()} == {"load", "topology"}
    assert empty.budget.ListFields() == empty.options.ListFields() == []


def test_a_current_placement_may_be_a_bare_array(service: RunningService, client: Any) -> None:
    client.place(LOAD, TOPOLOGY, current=[[0, 1, 2, 3, 0, 1]] * 2)

    [request] = service.solver.requests
    assert array_of(request.current.phy2log).tolist() == [[0, 1, 2, 3, 0, 1]] * 2
    assert request.current.digest == b""


@pytest.mark.parametrize(
    "load",
    [np.arange(24)[::3].reshape(2, 4), np.arange(0, 24, 3).reshape(4, 2).T.astype(">i8")],
    ids=["strided", "transposed and big-endian"],
)
def test_loads_arrive_in_row_major_order_whatever_their_layout(
    service: RunningService, client: Any, load: np.ndarray
) -> None:
    client.place(load, TOPOLOGY)

    [request] = service.solver.requests
    assert array_of(request.load).tolist() == load.tolist()


def test_place_answers_a_checked_placement(client: Any) -> None:
    result = client.place(LOAD, TOPOLOGY)

    assert result.placement == Placement.untouched(2, 4, 6, 2)
    assert (result.placement.num_experts, result.placement.num_gpus) == (4, 2)
    assert result.after.imbalance.tolist() == result.placement.balance(LOAD).imbalance.tolist()
    assert len(result.moves) == 0
    assert result.before is None


def test_place_answers_moves_and_the_balance_before(service: RunningService, client: Any) -> None:
    def answer(response: Any) -> None:
        response.moves.layer_slot_expert.CopyFrom(tensor_of(np.array([[0, 4, 1], [1, 5, 2]])))
        response.moves.source_gpus.CopyFrom(tensor_of(np.array([[0, 1], [1, -1]])))
        response.before.CopyFrom(response.after)

    service.solver.answer = answer
    result = client.place(LOAD, TOPOLOGY)

    moves = result.moves
    assert [moves.layer.tolist(), moves.slot.tolist(), moves.expert.tolist()] == [
        [0, 1],
        [4, 5],
        [1, 2],
    ]
    assert moves.source_gpus.tolist() == [[0, 1], [1, -1]]
    assert moves.per_layer(3).tolist() == [1, 1, 0]
    assert len(moves) == 2
    assert result.before.gpu_load.tolist() == result.after.gpu_load.tolist()


def test_pack_sends_and_answers_arrays(service: RunningService, client: Any) -> None:
    result = client.pack(
        np.ones((1, 4), np.float16),
        2,
        item_group=[[0, 0, 1, 1]],
        options=SolverOptions(effort="fast"),
    )

    [request] = service.solver.requests
    assert request.num_packs == 2
    assert request.weight.data_type == tensor_pb2.DATA_TYPE_FLOAT32
    assert array_of(request.item_group).tolist() == [[0, 0, 1, 1]]
    assert request.options.effort == solver_service_pb2.EFFORT_FAST
    assert result.pack_index.tolist() == [[0, 1, 0, 1]]
    assert result.rank_in_pack.tolist() == [[0, 0, 1, 1]]


WRONG = {
    "load": [[["x"]]],
    "topology.num_replicas": [-1],
    "topology.num_gpus": [2**32, 2.0, "2", True],
    "current.phy2log": [[[0.5]]],
    "budget.max_moves": [-1],
    "budget.max_moves_per_layer": [-1],
    "budget.min_gain": ["x", np.True_, math.nan],
    "budget.cross_node_cost": [True, 10**400],
    "options.effort": ["heroic", ["fast"]],
    "options.objective": ["l1", {}],
    "options.top_k": [-1],
    "options.max_iterations": [-2],
    "options.restarts": [-1],
    "options.seed": [1.5, True],
    "timeout": ["3", True, 0.0, math.nan],
}


@pytest.mark.parametrize(
    ("field", "wrong"), [(field, wrong) for field, values in WRONG.items() for wrong in values]
)
def test_what_cannot_be_sent_is_refused_by_name(
    service: RunningService, client: Any, field: str, wrong: Any
) -> None:
    whole = {"topology": TOPOLOGY, "budget": MoveBudget(), "options": SolverOptions()}
    argument, _, attribute = field.partition(".")
    if argument in whole:
        wrong = replace(whole[argument], **{attribute: wrong})
    with pytest.raises(InvalidArgumentError) as caught:
        client.place(**{"load": LOAD, "topology": TOPOLOGY, argument: wrong})

    assert [violation.field for violation in caught.value.field_violations] == [field]
    assert service.solver.requests == []


@pytest.mark.parametrize(
    ("arguments", "field"),
    [(([["x"]], 2), "weight"), ((LOAD, -2), "num_packs"), ((LOAD, "two"), "num_packs")],
)
def test_what_cannot_be_packed_is_refused_by_name(
    service: RunningService, client: Any, arguments: tuple[Any, ...], field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.pack(*arguments)

    assert [violation.field for violation in caught.value.field_violations] == [field]
    assert service.solver.requests == []


def test_a_refusal_names_the_value(client: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^options.seed: 1\.5 is not an integer$"):
        client.place(LOAD, TOPOLOGY, options=SolverOptions(seed=1.5))
    with pytest.raises(InvalidArgumentError, match=r"^timeout: '3' is not a real number$"):
        client.place(LOAD, TOPOLOGY, timeout="3")


def test_numpys_numbers_are_numbers(service: RunningService, client: Any) -> None:
    client.place(
        LOAD,
        Topology(np.int64(6), np.uint8(2)),
        budget=MoveBudget(min_gain=np.float32(0.5), cross_node_cost=2),
        options=SolverOptions(seed=np.int64(-1)),
        timeout=np.float64(20),
    )

    [request] = service.solver.requests
    assert (request.topology.num_replicas, request.topology.num_gpus) == (6, 2)
    assert (request.budget.min_gain, request.budget.cross_node_cost) == (0.5, 2.0)
    assert request.options.seed == 2**64 - 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_message_bytes": 5e9}, "max_message_bytes"),
        ({"max_message_bytes": 2**31}, "max_message_bytes"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
        ({"max_message_bytes": True}, "max_message_bytes"),
        ({"timeout": "3"}, "timeout"),
    ],
)
def test_a_client_refuses_settings_by_name(
    connect: Connect, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        connect("unix:/nowhere", **options)

    assert [violation.field for violation in caught.value.field_violations] == [field]


def test_the_largest_limit_that_grpc_knows_is_taken(
    service: RunningService, connect: Connect
) -> None:
    client = connect(service.target, max_message_bytes=2**31 - 1)

    assert client.place(LOAD, TOPOLOGY).placement is not None


def test_a_server_too_old_to_send_the_bound_is_understood(
    service: RunningService, client: Any
) -> None:
    service.solver.answer = lambda response: response.after.ClearField("bound")

    after = client.place(LOAD, TOPOLOGY).after

    assert after.bound.tolist() == [1.0, 1.0]
    assert after.gap.tolist() == (after.imbalance - 1).tolist()


SHORT = tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT64, shape=[2], data=b"1234")


@pytest.mark.parametrize(
    ("part", "field", "value", "complaint"),
    [
        ("placement", "digest", bytes(32), "Do not use this placement"),
        ("placement", "digest", None, "its digest is empty"),
        ("placement", "phy2log", tensor_of(np.zeros((2, 6))), "expert 1 has no slot"),
        ("after", "gpu_load", SHORT, "4 bytes, but shape"),
        ("after", "imbalance", None, "0 is not a known type"),
        ("after", "bound", SHORT, "4 bytes, but shape"),
        ("moves", "layer_slot_expert", tensor_of(np.zeros((2, 2))), r"moves of shape \(2, 2\)"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_a_protocol_error(
    service: RunningService, client: Any, part: str, field: str, value: Any, complaint: str
) -> None:
    def answer(response: Any) -> None:
        message = getattr(response, part)
        message.ClearField(field)
        message.MergeFrom(type(message)(**{field: value}))

    service.solver.answer = answer
    with pytest.raises(ProtocolError, match=complaint):
        client.place(LOAD, TOPOLOGY)


def test_a_refusal_carries_the_servers_field_violations(
    service: RunningService, client: Any
) -> None:
    violation = ("topology.num_gpus", "4 does not divide 6")
    service.solver.failures.append(
        Failure(grpc.StatusCode.INVALID_ARGUMENT, "bad topology", (violation,))
    )

    with pytest.raises(InvalidArgumentError, match="bad topology") as caught:
        client.place(LOAD, TOPOLOGY)

    assert caught.value.field_violations == (FieldViolation(*violation),)
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert len(service.solver.requests) == 1


def test_a_call_is_retried_until_the_server_is_back(service: RunningService, client: Any) -> None:
    turned_away = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=0.001)
    service.solver.failures.extend([UNAVAILABLE, turned_away, UNAVAILABLE])

    assert client.place(LOAD, TOPOLOGY).placement is not None
    assert len(service.solver.requests) == 4


def test_retries_end_after_max_attempts(service: RunningService, connect: Connect) -> None:
    client = connect(service.target, retry=RetryPolicy(3, 0.0, 0.0))
    service.solver.failures.extend([UNAVAILABLE] * 5)

    with pytest.raises(UnavailableError, match="scripted"):
        client.pack(LOAD, 2)
    assert len(service.solver.requests) == 3


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure(grpc.StatusCode.UNAVAILABLE, retry_after=3600.0), UnavailableError),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED), ResourceExhaustedError),
    ],
    ids=["beyond the timeout", "a lasting limit"],
)
def test_a_call_is_not_retried_if_waiting_does_not_help(
    service: RunningService, client: Any, failure: Failure, kind: type[Any]
) -> None:
    service.solver.failures.append(failure)

    with pytest.raises(kind) as caught:
        client.place(LOAD, TOPOLOGY)
    assert caught.value.retry_after == failure.retry_after
    assert len(service.solver.requests) == 1


def test_the_timeout_of_a_call_overrides_the_clients(
    service: RunningService, connect: Connect
) -> None:
    service.solver.release.clear()

    with pytest.raises(DeadlineExceededError):
        connect(service.target, timeout=0.05).place(LOAD, TOPOLOGY)
    with pytest.raises(DeadlineExceededError):
        connect(service.target).place(LOAD, TOPOLOGY, timeout=0.05)

    service.solver.release.set()
    patient = connect(service.target, timeout=0.000001)
    assert patient.place(LOAD, TOPOLOGY, timeout=math.inf).placement is not None


def test_calls_have_a_finite_timeout_by_default(service: RunningService, client: Any) -> None:
    client.place(LOAD, TOPOLOGY)
    client.place(LOAD, TOPOLOGY, timeout=math.inf)

    finite, infinite = service.solver.remaining
    assert finite is not None
    assert finite < 31  # the wire rounds up
    assert infinite > 1e9


def test_a_target_without_server_is_unavailable(connect: Connect) -> None:
    with pytest.raises(UnavailableError, match="Check the address"):
        connect("unix:/nowhere").place(LOAD, TOPOLOGY)


def test_a_message_beyond_the_limit_is_an_exhausted_resource(
    service: RunningService, connect: Connect
) -> None:
    small = connect(service.target, max_message_bytes=1000)

    with pytest.raises(ResourceExhaustedError, match="larger than max"):
        small.place(np.ones((10, 100)), TOPOLOGY)
    assert service.solver.requests == []


def test_messages_beyond_grpcs_own_limit_pass(service: RunningService, client: Any) -> None:
    weight = np.ones((1, 2**20))

    assert client.pack(weight, 2).pack_index.shape == weight.shape


def test_a_unix_socket_is_a_target(connect: Connect, tmp_path: Any) -> None:
    with serving(f"unix:{tmp_path}/socket") as service:
        assert connect(service.target).place(LOAD, TOPOLOGY).placement is not None


def test_a_closed_client_says_so(client: Any) -> None:
    client.place(LOAD, TOPOLOGY)
    client.close()
    client.close()

    with pytest.raises(ClientClosedError):
        client.place(LOAD, TOPOLOGY)
    with pytest.raises(ClientClosedError):
        client.health()
    with pytest.raises(ClientClosedError):
        client.wait_ready()
    with pytest.raises(ClientClosedError):
        client.place_stream([LOAD], TOPOLOGY)


def test_closing_cancels_a_call_under_way(service: RunningService, client: Any) -> None:
    service.solver.release.clear()

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.place, LOAD, TOPOLOGY)
        assert service.solver.received.acquire(timeout=20)
        client.close()
        with pytest.raises(CallCancelledError):
            call.result()


def follow(client: Any) -> None:
    next(client.watch_placement("d"))


LIMITS: dict[str, tuple[str, Callable[[Any], object], str, str]] = {
    "place": ("solver", lambda client: client.place(LOAD, TOPOLOGY), "less effort", "Send less"),
    "pack": ("solver", lambda client: client.pack(LOAD, 2), "less effort", "Send less"),
    "get": ("deployments", lambda c: c.get_deployment("d"), "a longer timeout.)", "(Ask the"),
    "trigger": ("deployments", lambda c: c.trigger("d"), "may have begun", "(Ask the"),
    "watch": ("deployments", follow, "The watch has lasted as long as", "(Ask the"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_what_an_error_advises_fits_the_call(
    service: RunningService, client: Any, name: str
) -> None:
    part, call, too_slow, too_much = LIMITS[name]
    scripted = getattr(service, part)
    for code, advice in (("DEADLINE_EXCEEDED", too_slow), ("RESOURCE_EXHAUSTED", too_much)):
        failure = Failure(grpc.StatusCode[code])
        if name == "watch":
            scripted.watches.append([failure])
        else:
            scripted.failures.append(failure)
        with pytest.raises(TrimtabError) as caught:
            call(client)
        assert advice in str(caught.value)
        assert ("effort" in str(caught.value)) == (advice == "less effort")
