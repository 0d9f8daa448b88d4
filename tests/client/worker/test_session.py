"""A session's switches and streams, against a scripted server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import grpc
import numpy as np
import pytest

from tests.client.service import array_of, tensor_of
from tests.client.worker.engine import FIRST, SECOND, Engine, MinBarrier, changed, options
from tests.client.worker.server import (
    WAIT,
    RunningSessions,
    Stream,
    offer_message,
    serving_bytes,
    version_of,
)
from trimtab.v1alpha1 import session_service_pb2, switch_pb2
from trimtab_client import (
    ClientClosedError,
    InvalidArgumentError,
    Placement,
    RetryPolicy,
    Topology,
    Version,
)
from trimtab_client.worker import connector

ZERO, ONE, TWO = (Version(1, generation) for generation in range(3))
ALL = (0, 1)
HELD = switch_pb2.HeldState
Start = Callable[..., Engine]


def offer(stream: Stream, version: Version = ONE, **others: Any) -> None:
    values = {"base_version": ZERO, "base": FIRST, "new": SECOND, "gpus": ALL, **others}
    stream.send(offer=offer_message(version, **values))


def accepted(stream: Stream, engine: Engine) -> Future[Any]:
    """An offer is accepted, and its transfer runs."""
    offer(stream)
    assert version_of(stream.expect("accepted").version) == ONE
    return engine.next_offer()[1]


def prepared(stream: Stream, engine: Engine) -> None:
    accepted(stream, engine).set_result(None)
    assert version_of(stream.expect("prepared").version) == ONE


def armed(stream: Stream, engine: Engine) -> None:
    prepared(stream, engine)
    stream.commit(ONE, SECOND)
    stream.fence()


# Hello.


def test_hello_carries_the_worker_options(server: RunningSessions, start: Start) -> None:
    start(
        options(
            gpus=(1,),
            transfer="collective",
            scope="local",
            staging_slots=4,
            model="deepseek-v3",
            first_layer=3,
        ),
        barrier=lambda values: values,
    )

    hello = server.next_stream().hello
    assert (hello.deployment, hello.group_id, hello.worker) == ("model", "group 1", "worker 0")
    assert (hello.incarnation, hello.stream, list(hello.gpus)) == (7, 1, [1])
    assert (hello.topology.num_replicas, hello.topology.num_gpus, hello.num_experts) == (6, 2, 4)
    assert array_of(hello.placement.phy2log).tolist() == FIRST.phy2log.tolist()
    assert hello.placement.digest == FIRST.digest
    assert not hello.HasField("in_force")
    assert not hello.HasField("held")
    assert not hello.HasField("flipped_at")
    assert hello.scope == session_service_pb2.SCOPE_LOCAL
    assert hello.transfer == session_service_pb2.TRANSFER_COLLECTIVE
    assert (hello.staging_slots, hello.max_layers_per_switch, hello.bytes_per_expert) == (4, 0, 100)
    assert (hello.model, hello.first_layer) == ("deepseek-v3", 3)


def test_it_is_connected_once_the_server_has_answered(
    server: RunningSessions, engine: Engine
) -> None:
    stream = server.next_stream()
    assert not engine.session.connected

    stream.direct()
    assert engine.event("connected") == {"stream": 1}
    assert engine.session.connected
    assert engine.session.in_force is None


# A switch.


def test_a_switch_goes_from_offer_to_flip(server: RunningSessions, engine: Engine) -> None:
    stream = server.joined()
    assert engine.event("in_force")["version"] == ZERO
    offer(stream)

    said = stream.expect("accepted")
    assert (version_of(said.version), said.digest) == (ONE, SECOND.digest)
    asked, transfer = engine.next_offer()
    assert (asked.version, asked.base, asked.placement) == (ONE, ZERO, SECOND)
    assert asked.base_placement == FIRST
    assert asked.layers.tolist() == [1]
    assert asked.old_rows.tolist() == FIRST.phy2log[[1]].tolist()
    assert asked.new_rows.tolist() == SECOND.phy2log[[1]].tolist()
    assert asked.bytes_received == 100 * len(asked.receives)

    stream.fence()
    assert engine.boundary() is None
    transfer.set_result(None)
    said = stream.expect("prepared")
    assert (version_of(said.version), said.digest) == (ONE, SECOND.digest)
    stream.fence()
    assert engine.boundary() is None

    stream.commit(ONE, SECOND)
    flip = engine.steps_until_flip()
    assert (flip.version, flip.placement, flip.step) == (ONE, SECOND, engine.step)
    assert flip.offer is asked
    assert flip.layers.tolist() == [1]
    assert flip.placement.log2phy.shape[0] == 3
    assert engine.session.placement == FIRST

    engine.apply()
    said = stream.expect("applied")
    assert (version_of(said.version), said.digest, said.step) == (ONE, SECOND.digest, flip.step)
    assert engine.session.placement == SECOND
    assert engine.session.in_force == ONE
    event = engine.event("flipped")
    assert (event["version"], event["step"], event["worker"]) == (ONE, flip.step, "worker 0")
    assert engine.log == ["offer"]


def test_switches_follow_each_other(server: RunningSessions, engine: Engine) -> None:
    stream = server.joined()
    base, placement = ZERO, FIRST
    for generation in range(1, 6):
        version, new = Version(1, generation), changed(placement, generation % 3)
        offer(stream, version, base_version=base, base=placement, new=new)
        engine.next_offer()[1].set_result(None)
        stream.expect("accepted")
        stream.expect("prepared")
        stream.commit(version, new)
        assert engine.steps_until_flip().placement == new
        engine.apply()
        stream.expect("applied")
        base, placement = version, new
    assert engine.session.in_force == Version(1, 5)


def test_a_repeated_commit_is_answered_again(server: RunningSessions, engine: Engine) -> None:
    stream = server.joined()
    armed(stream, engine)
    engine.steps_until_flip()
    engine.apply()
    first = stream.expect("applied")

    stream.commit(ONE, SECOND)
    assert stream.expect("applied") == first


def test_a_repeated_offer_is_answered_again_and_begins_nothing(
    server: RunningSessions, engine: Engine
) -> None:
    stream = server.joined()
    accepted(stream, engine)
    offer(stream)

    stream.expect("accepted")
    assert engine.offers.empty()


def test_a_late_offer_is_ignored(server: RunningSessions, engine: Engine) -> None:
    stream = server.joined()
    armed(stream, engine)
    engine.steps_until_flip()
    engine.apply()
    stream.expect("applied")
    offer(stream)

    stream.fence()


@pytest.mark.parametrize("answer", [True, None], ids=str)
def test_a_transfer_may_end_at_once(
    server: RunningSessions, start: Start, answer: bool | None
) -> None:
    start(on_offer=lambda _: answer)
    stream = server.joined()
    offer(stream)

    stream.expect("accepted")
    stream.expect("prepared")


def test_each_worker_gets_its_own_part_of_the_offer(server: RunningSessions, start: Start) -> None:
    """Between them, two workers receive and send the same, and fill every slot that changes."""
    rng = np.random.default_rng(0)
    row = np.concatenate([np.arange(4), rng.integers(0, 4, 2)])
    new = Placement.of(np.stack([rng.permutation(row) for _ in range(3)]), 4, 2)
    asked = []
    for gpu in ALL:
        engine = start(options(gpus=(gpu,), worker=f"worker {gpu}"), barrier=lambda values: values)
        stream = server.joined()
        offer(stream, new=new, gpus=(gpu,))
        stream.expect("accepted")
        asked.append(engine.next_offer()[0])

    for mine, other in (asked, asked[::-1]):
        sent = sorted((layer, slot, expert) for layer, _, slot, expert in mine.sends.tolist())
        assert sent == sorted(tuple(row) for row in other.receives.tolist())
        assert len(mine.receives) > 0
        assert (mine.receive_sources[:, 0] != -1).all()


# Refusals.


def spoil(**fields: Any) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        for name, value in fields.items():
            if value is None:
                message.ClearField(name)
            elif hasattr(value, "CopyFrom"):
                getattr(message, name).CopyFrom(value)
            else:
                setattr(message, name, value)

    return change


def rows(*values: Any) -> Any:
    return tensor_of(np.array(values))


SPOILT = {
    "another digest": (spoil(digest=bytes(32)), "the digest of the placement"),
    "another base": (spoil(base_digest=bytes(32)), "the digest of the base"),
    "another base version": (spoil(base=switch_pb2.Version(epoch=1, generation=9)), "base is 1.9"),
    "no base": (spoil(base=None), "offer.base: is required"),
    "no layers": (spoil(layers=None), "offer.layers.data_type: 0 is not a known type"),
    "a layer too high": (spoil(layers=rows(3)), "layers[0]: there is no such layer"),
    "a negative layer": (spoil(layers=rows(-1)), "layers[0]: there is no such layer"),
    "layers twice": (spoil(layers=rows(1, 1)), "are not ascending"),
    "rows of other layers": (spoil(layers=rows(1, 2)), "old_rows: shape [1, 6] is not [2, 6]"),
    "other old rows": (spoil(old_rows=rows([0] * 6)), "not the rows of the current placement"),
    "an expert too high": (spoil(new_rows=rows([0, 1, 2, 3, 4, 0])), "not an expert in [0, 4)"),
    "an expert without slot": (spoil(new_rows=rows([0, 1, 2, 2, 1, 0])), "expert 3 has no slot"),
    "floats": (
        spoil(layers=tensor_of(np.ones(1), 1)),
        "offer.layers.data_type: float32 is not int32",
    ),
    "a shape of no size": (
        spoil(layers=type(rows(1))(data_type=3, shape=[0], data=b"")),
        "offer.layers.shape: [0] has a size below 1",
    ),
    "negative shapes": (
        spoil(old_rows=type(rows(1))(data_type=3, shape=[-1, -6], data=bytes(24))),
        "offer.old_rows.shape: [-1, -6] has a size below 1",
    ),
    "too few bytes": (
        spoil(old_rows=type(rows(1))(data_type=3, shape=[1, 6], data=bytes(20))),
        "20 bytes",
    ),
    "nothing received": (spoil(receives=None, receive_sources=None), "gets no weights"),
    "no sources": (spoil(receive_sources=None), "receive_sources: 0 rows"),
    "receives of another width": (
        spoil(receives=rows([1, 2])),
        "offer.receives.shape: [1, 2] is not [M, 3]",
    ),
    "a slot too high": (spoil(receives=rows([1, 6, 0])), "receives[0]: there is no such slot"),
    "another expert received": (spoil(receives=rows([1, 0, 3])), "gets another expert"),
    "a copy between GPUs": (
        spoil(copies=rows([1, 0, 3, 2])),
        "the slots are on two different GPUs",
    ),
    "a copy of another expert": (spoil(copies=rows([1, 0, 1, 3])), "has another expert"),
    "a send of another expert": (spoil(sends=rows([1, 0, 3, 3])), "sends[0]: the slot has another"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_an_offer_that_does_not_fit_is_refused(
    server: RunningSessions, start: Start, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = start()
    stream = server.joined()
    change, reason = SPOILT[name]
    message = offer_message(ONE, ZERO, FIRST, SECOND, ALL)
    change(message)
    stream.send(offer=message)

    said = stream.expect("refused")
    assert version_of(said.version) == ONE
    assert said.digest == message.digest
    assert reason in said.reason
    assert engine.offers.empty()
    assert "refused 1.1" in caplog.text

    # A good one is still welcome.
    offer(stream, TWO)
    stream.expect("accepted")


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"staging_slots": 1}, "staging has room for 1"),
        ({"max_layers_per_switch": 1}, "2 layers differ, but the limit is 1"),
    ],
    ids=["slots", "layers"],
)
def test_an_offer_without_room_is_refused(
    server: RunningSessions, start: Start, limit: dict[str, int], reason: str
) -> None:
    start(options(**limit))
    stream = server.joined()
    offer(stream, new=changed(changed(FIRST, 0, 3), 1, 3))

    assert reason in stream.expect("refused").reason


def test_an_offer_for_slots_of_another_worker_is_refused(
    server: RunningSessions, start: Start
) -> None:
    start(options(gpus=(0,)), barrier=lambda values: values)
    stream = server.joined()
    offer(stream, gpus=ALL)

    assert "not on a GPU of this worker" in stream.expect("refused").reason


def test_an_offer_while_another_is_held_is_refused(server: RunningSessions, engine: Engine) -> None:
    stream = server.joined()
    accepted(stream, engine)
    offer(stream, TWO)

    assert stream.expect("refused").reason == "the worker already holds 1.1"


def raises(_: object) -> bool:
    raise RuntimeError("out of pinned memory")


@pytest.mark.parametrize(
    ("on_offer", "reason"),
    [
        (raises, "out of pinned memory"),
        (lambda _: False, "the engine declined"),
        (lambda _: 7, "on_offer returned 7"),
    ],
    ids=["raises", "declines", "returns nonsense"],
)
def test_an_engine_that_cannot_prepare_refuses(
    server: RunningSessions, start: Start, on_offer: Any, reason: str
) -> None:
    engine = start(on_offer=on_offer)
    stream = server.joined()
    offer(stream)

    stream.expect("accepted")
    assert reason in stream.expect("refused").reason
    assert engine.next_aborted().version == ONE


@pytest.mark.parametrize("how", ["fails", "is cancelled", "says no"])
def test_a_transfer_that_fails_is_refused(
    server: RunningSessions, engine: Engine, how: str
) -> None:
    stream = server.joined()
    transfer = accepted(stream, engine)
    if how == "fails":
        transfer.set_exception(OSError("link down"))
    elif how == "is cancelled":
        transfer.cancel()
    else:
        transfer.set_result(False)

    said = stream.expect("refused")
    expected = {"fails": "link down", "is cancelled": "cancelled", "says no": "declined"}[how]
    assert expected in said.reason
    assert engine.next_aborted().version == ONE
    offer(stream, TWO)
    stream.expect("accepted")


# Aborts.


def test_an_abort_waits_for_the_transfer(server: RunningSessions, engine: Engine) -> None:
    stream = server.joined()
    transfer = accepted(stream, engine)
    stream.abort(ONE)
    stream.fence()
    assert engine.aborted.empty()

    transfer.set_result(None)
    assert version_of(stream.expect("discarded").version) == ONE
    assert engine.next_aborted().version == ONE
    assert engine.boundary() is None


def test_an_abort_of_what_is_prepared_frees_staging_first(
    server: RunningSessions, start: Start
) -> None:
    freed = threading.Event()
    begun = threading.Event()

    def on_abort(_: object) -> None:
        begun.set()
        assert freed.wait(WAIT)

    engine = start(on_abort=on_abort)
    stream = server.joined()
    prepared(stream, engine)
    stream.abort(ONE)
    assert begun.wait(WAIT)
    freed.set()

    stream.expect("discarded")


def test_an_abort_of_what_is_not_held_is_answered(server: RunningSessions, engine: Engine) -> None:
    stream = server.joined()
    stream.abort(TWO)

    assert version_of(stream.expect("discarded").version) == TWO
    assert engine.aborted.empty()


def test_an_abort_of_a_committed_version_is_reported_and_ignored(
    server: RunningSessions, engine: Engine
) -> None:
    stream = server.joined()
    armed(stream, engine)
    stream.abort(ONE)

    assert "abort of 1.1" in engine.event("complaint")["reason"]
    assert engine.steps_until_flip().version == ONE


# Several ranks.


def ranks(start: Start, count: int, transfer: str = "pull") -> list[Engine]:
    barrier = MinBarrier(count)
    placement, topology = wide(count)
    return [
        start(
            options(
                worker=f"worker {rank}",
                gpus=(rank,),
                placement=placement,
                topology=topology,
                transfer=transfer,
            ),
            barrier=barrier,
        )
        for rank in range(count)
    ]


def wide(count: int) -> tuple[Placement, Any]:
    return Placement.untouched(3, 4, 3 * count, count), Topology(3 * count, count)


class Loops:
    """Each engine's loop on a thread of its own, in step by their barrier, until all flip."""

    def __init__(self, engines: list[Engine]) -> None:
        self.flips: list[Any] = [None] * len(engines)
        self._threads = [
            threading.Thread(target=self._run, args=(index, engine))
            for index, engine in enumerate(engines)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, index: int, engine: Engine) -> None:
        while (flip := engine.boundary()) is None:
            pass
        engine.apply()
        self.flips[index] = flip

    def join(self) -> None:
        for thread in self._threads:
            thread.join(2 * WAIT)
            assert not thread.is_alive()


def streams_of(server: RunningSessions, engines: list[Engine]) -> list[Stream]:
    joined = {}
    for _ in engines:
        stream = server.joined()
        joined[stream.hello.worker] = stream
    return [joined[f"worker {rank}"] for rank in range(len(engines))]


@pytest.mark.parametrize("count", [2, 3])
def test_all_ranks_flip_at_the_same_step(server: RunningSessions, start: Start, count: int) -> None:
    engines = ranks(start, count)
    placement, _ = wide(count)
    new = changed(placement)
    streams = streams_of(server, engines)
    for rank, stream in enumerate(streams):
        stream.send(offer=offer_message(ONE, ZERO, placement, new, (rank,)))
        engines[rank].next_offer()[1].set_result(None)
        stream.expect("accepted")
        stream.expect("prepared")
    loops = Loops(engines)

    for stream in streams[:-1]:
        stream.commit(ONE, new)
        stream.fence()
    assert loops.flips == [None] * count
    streams[-1].commit(ONE, new)
    loops.join()

    steps = {stream.expect("applied").step for stream in streams}
    assert steps == {flip.step for flip in loops.flips}
    assert len(steps) == 1


def test_a_collective_transfer_begins_at_the_same_step(
    server: RunningSessions, start: Start
) -> None:
    engines = ranks(start, 2, "collective")
    placement, _ = wide(2)
    new = changed(placement)
    streams = streams_of(server, engines)
    loops = Loops(engines)
    streams[0].send(offer=offer_message(ONE, ZERO, placement, new, (0,)))
    streams[0].expect("accepted")
    streams[0].fence()
    assert engines[0].offers.empty()

    streams[1].send(offer=offer_message(ONE, ZERO, placement, new, (1,)))
    for engine, stream in zip(engines, streams, strict=True):
        engine.next_offer()[1].set_result(None)
        stream.expect("accepted") if stream is streams[1] else None
        stream.expect("prepared")
    for stream in streams:
        stream.commit(ONE, new)
    loops.join()
    assert loops.flips[0].step == loops.flips[1].step


def test_the_barrier_is_called_every_so_many_steps(server: RunningSessions, start: Start) -> None:
    seen = []

    def barrier(values: Any) -> Any:
        seen.append(engine.step)
        return np.array(values)

    engine = start(barrier=barrier, barrier_every=3)
    for _ in range(10):
        engine.boundary()
    assert seen == [3, 6, 9]


def test_a_barrier_of_another_kind_is_an_error(server: RunningSessions, start: Start) -> None:
    engine = start(barrier=lambda values: None)

    with pytest.raises(InvalidArgumentError, match="barrier: None is not two integers"):
        engine.boundary()


# Reconnecting.


STATES = {
    "stable": (lambda stream, engine: None, None),
    "accepted": (accepted, HELD.HELD_STATE_ACCEPTED),
    "prepared": (prepared, HELD.HELD_STATE_PREPARED),
    "armed": (armed, HELD.HELD_STATE_ARMED),
}


@pytest.mark.parametrize("ending", ["drops", "fails", "restarts"])
@pytest.mark.parametrize("state", STATES)
def test_the_hello_after_a_loss_resumes_the_session(
    server: RunningSessions, start: Start, state: str, ending: str
) -> None:
    engine = start()
    stream = server.joined()
    stream.fence()
    reach, held = STATES[state]
    transfer = reach(stream, engine)
    if ending == "drops":
        stream.end()
    elif ending == "fails":
        stream.fail(grpc.StatusCode.ABORTED)
    else:
        server.stop()
        server.start()
    assert engine.boundary() is None or state == "armed"

    stream = server.next_stream()
    hello = stream.hello
    assert hello.stream >= 2
    assert version_of(hello.in_force) == ZERO
    assert hello.HasField("held") == (held is not None)
    if held is not None:
        assert version_of(hello.held.version) == ONE
        assert hello.held.state == held

    stream.direct()
    if state == "accepted":
        # Its transfer went on, and goes on to be reported.
        transfer.set_result(None)
        stream.expect("prepared")
    if state in ("accepted", "prepared"):
        stream.abort(ONE)
        stream.expect("discarded")
        assert engine.next_aborted().version == ONE
    offer(stream, TWO)
    assert stream.expect("refused" if state == "armed" else "accepted")


def test_a_transfer_may_end_without_a_stream(server: RunningSessions, engine: Engine) -> None:
    stream = server.joined()
    transfer = accepted(stream, engine)
    server.stop()
    engine.event("disconnected")
    transfer.set_result(None)
    server.start()

    stream = server.next_stream()
    if stream.hello.held.state != HELD.HELD_STATE_PREPARED:
        # It connected before it heard that.
        stream.expect("prepared")


def test_steps_and_an_armed_flip_continue_without_a_server(
    server: RunningSessions, engine: Engine
) -> None:
    stream = server.joined()
    armed(stream, engine)
    server.stop()
    engine.event("disconnected")
    assert not engine.session.connected

    flip = engine.boundary()
    assert flip is not None
    engine.apply()
    for _ in range(1000):
        assert engine.boundary() is None
    assert engine.session.in_force == ONE

    server.start()
    hello = server.next_stream().hello
    assert version_of(hello.in_force) == ONE
    assert hello.placement.digest == SECOND.digest
    assert hello.flipped_at == flip.step
    assert not hello.HasField("held")


def test_an_engine_serves_on_if_there_never_was_a_server(start: Start) -> None:
    engine = start(options(), retry=RetryPolicy(initial_backoff=5.0, max_backoff=5.0))
    for _ in range(1000):
        assert engine.boundary() is None
    engine.record(np.ones((3, 4), int), 1, 1000)
    engine.close()


def test_a_waiting_stream_finds_a_server_that_is_back(
    server: RunningSessions, start: Start
) -> None:
    # No wait after the stream is lost, nor after the next finds no connection; then for long.
    waits = iter([0.0, 0.0, *[1.0] * 100])
    policy = RetryPolicy(initial_backoff=1000.0, max_backoff=1000.0)
    engine = start(retry=policy, random=lambda: next(waits))
    server.joined()
    engine.event("in_force")
    server.stop()
    for _ in range(2):
        engine.event("disconnected")

    server.start()
    assert server.next_stream().hello.stream == 3


def test_a_stream_that_waits_in_vain_is_followed_by_one_that_does_not_wait(
    server: RunningSessions,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connector, "_MAX_WAIT_FOR_READY_SECONDS", 0.02)
    engine = start(retry=RetryPolicy(initial_backoff=0.0, max_backoff=0.0))
    server.joined()
    engine.event("in_force")
    server.stop()
    reasons = {engine.event("disconnected")["reason"] for _ in range(5)}
    assert all(reason.startswith("UNAVAILABLE: ") for reason in reasons)
    said = [each for each in caplog.records if "no session" in each.message]
    assert sum(each.levelname == "WARNING" for each in said) <= 2, "the loss, and that it lasts"

    server.start()
    assert server.next_stream().hello.stream > 5


def test_the_next_hello_reports_what_happened_without_a_stream(
    server: RunningSessions, engine: Engine
) -> None:
    """A flip whose Applied found no stream."""
    stream = server.joined()
    armed(stream, engine)
    assert engine.boundary() is not None
    stream.end()
    stream = server.next_stream()
    assert stream.hello.held.state == HELD.HELD_STATE_ARMED
    engine.apply()

    stream.direct()
    assert version_of(stream.expect("applied").version) == ONE


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
    ],
    ids=lambda code: code.name,
)
def test_an_error_that_a_person_has_to_repair_is_retried_slowly(
    server: RunningSessions, start: Start, code: grpc.StatusCode
) -> None:
    policy = RetryPolicy(initial_backoff=0.001, max_backoff=1000.0)
    engine = start(retry=policy, random=lambda: 0.5)
    server.next_stream().fail(code, "two workers own GPU 1")

    event = engine.event("disconnected")
    assert event["retry_in"] == 750.0
    assert event["reason"] == f"{code.name}: two workers own GPU 1"
    assert engine.boundary() is None


def test_a_drained_worker_comes_back_after_a_pause(server: RunningSessions, start: Start) -> None:
    waits = iter([0.00001, *[0.0] * 100])
    policy = RetryPolicy(initial_backoff=1.0, max_backoff=1000.0)
    engine = start(retry=policy, random=lambda: next(waits))
    stream = server.joined()
    stream.send(drain=session_service_pb2.Drain(seconds=0.0))

    assert engine.event("disconnected")["retry_in"] == pytest.approx(0.01)
    assert stream.over.wait(WAIT)
    assert server.next_stream().hello.stream == 2


def test_a_drain_leaves_time_for_open_work(server: RunningSessions, engine: Engine) -> None:
    stream = server.joined()
    armed(stream, engine)
    stream.send(drain=session_service_pb2.Drain(seconds=1000.0))
    engine.steps_until_flip()
    engine.apply()

    stream.expect("applied")
    stream.fail(grpc.StatusCode.UNAVAILABLE)
    assert server.next_stream().hello.flipped_at == engine.step


# A server that misbehaves.


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({}, "does not know"),
        ({"commit": switch_pb2.Commit()}, "commit.digest"),
        ({"commit": switch_pb2.Commit(digest=bytes(32))}, "commit.version: is required"),
        ({"abort": switch_pb2.Abort()}, "abort.version"),
        ({"welcome": switch_pb2.Welcome(digest=b"short")}, "welcome.digest: 5 bytes"),
        ({"offer": switch_pb2.Offer()}, "offer.digest"),
        (
            {"directive": session_service_pb2.Directive(report_interval_seconds=float("nan"))},
            "report_interval_seconds: nan",
        ),
        ({"directive": session_service_pb2.Directive()}, "report_interval_seconds: is 0"),
        ({"drain": session_service_pb2.Drain(seconds=-1)}, "drain.seconds: -1.0"),
        (
            {
                "commit": switch_pb2.Commit(
                    version=switch_pb2.Version(epoch=1, generation=5), digest=bytes(32)
                )
            },
            "commit of 1.5, which this worker does not hold",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_message_that_makes_no_sense_is_ignored_and_logged(
    server: RunningSessions,
    engine: Engine,
    message: Any,
    complaint: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = server.joined()
    stream.send(**message)

    assert complaint in engine.event("complaint")["reason"]
    assert complaint in caplog.text
    accepted(stream, engine)


def test_malformed_bytes_end_the_stream_but_not_the_session(
    start: Start, server: RunningSessions
) -> None:
    server.stop()
    with serving_bytes(b"\xff\xff") as target:
        engine = start(target=target)
        assert engine.event("disconnected")["stream"] == 1
        assert engine.event("disconnected")["stream"] == 2
        assert engine.boundary() is None


def test_a_closed_session_leaves_no_thread(server: RunningSessions, start: Start) -> None:
    engine = start()
    stream = server.joined()
    stream.fence()
    engine.close(timeout=0.01)
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith("trimtab-worker 0")
    ]


def test_a_server_of_a_lower_term_is_ignored_and_reported_once(
    server: RunningSessions, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def ignored() -> list[str]:
        return [line for line in caplog.messages if "since one of term 5 has been heard" in line]

    stream = server.joined()
    stream.send(term=5, directive=session_service_pb2.Directive(report_interval_seconds=9))
    for _ in range(3):
        stream.abort(TWO)
    assert "a server of term 1, since" in engine.event("complaint")["reason"]
    stream.term = 5
    stream.fence()
    assert len(ignored()) == 1
    stream.end()

    # It has lost its store, and started twice since.
    for term in (1, 2):
        stream = server.next_stream()
        stream.term = term
        for _ in range(3):
            stream.abort(TWO)
        assert f"a server of term {term}, since" in engine.event("complaint")["reason"]
        stream.end()
    assert len(ignored()) == 3
    assert server.next_stream().hello.in_force.epoch == 1


def test_callbacks_that_raise_are_logged(
    server: RunningSessions, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    engine = start(on_state=raises, on_abort=raises)
    stream = server.joined()
    prepared(stream, engine)
    stream.abort(ONE)

    stream.expect("discarded")
    assert "on_abort failed for 1.1" in caplog.text
    assert "on_state failed for 'connected'" in caplog.text


# Groups.


def test_a_new_group_connects_at_once(server: RunningSessions, start: Start) -> None:
    engine = start(retry=RetryPolicy(initial_backoff=1000.0, max_backoff=1000.0), random=lambda: 1)
    server.next_stream().fail(grpc.StatusCode.FAILED_PRECONDITION)
    engine.event("disconnected")
    for _ in range(5):
        engine.boundary()
    engine.regroup("group 2", SECOND)

    hello = server.next_stream().hello
    assert (hello.group_id, hello.stream) == ("group 2", 2)
    assert hello.placement.digest == SECOND.digest
    assert engine.boundary() is None, "steps begin anew"


def test_a_new_group_gives_up_the_offer_of_the_old_one(
    server: RunningSessions, engine: Engine
) -> None:
    stream = server.joined()
    armed(stream, engine)
    engine.regroup("group 2", FIRST)

    assert engine.next_aborted().version == ONE
    assert stream.over.wait(WAIT)
    hello = server.next_stream().hello
    assert not hello.HasField("held")
    assert version_of(hello.in_force) == ZERO
    assert engine.boundary() is None


def test_a_new_group_may_own_other_gpus(server: RunningSessions, start: Start) -> None:
    engine = start(options(gpus=(0,)), barrier=lambda values: values)
    assert list(server.next_stream().hello.gpus) == [0]
    engine.regroup("group 2", FIRST, gpus=[1])

    assert list(server.next_stream().hello.gpus) == [1]
    engine.record(np.ones((3, 3), int), 0, 0, per_slot=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("group 1", FIRST), "'group 1' is not the name of a new group"),
        (("", FIRST), "'' is not the name of a new group"),
        (("group 2", Placement.untouched(3, 4, 8, 2)), "not the topology's"),
        (("group 2", FIRST, [0, 2]), r"gpus\[1\]: 2 is not in"),
        (("group 2", FIRST, [0]), "barrier: None, but this worker owns 1 of 2"),
    ],
    ids=["the same", "none", "another topology", "no such GPU", "some GPUs"],
)
def test_a_group_that_cannot_be_is_refused(engine: Engine, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        engine.regroup(*arguments)


# The engine's own mistakes.


def test_a_step_before_the_flip_is_applied_is_refused(
    server: RunningSessions, engine: Engine
) -> None:
    stream = server.joined()
    armed(stream, engine)
    engine.steps_until_flip()

    with pytest.raises(InvalidArgumentError, match=r"apply the flip to 1\.1 first"):
        engine.boundary()
    with pytest.raises(InvalidArgumentError, match=r"apply the flip to 1\.1 first"):
        engine.regroup("group 2", FIRST)
    engine.apply()
    with pytest.raises(InvalidArgumentError, match="there is no flip to apply"):
        engine.apply()


@pytest.mark.parametrize("step", [3, 2, -1, 2.5, True, 2**63 - 1], ids=str)
def test_steps_have_to_rise(engine: Engine, step: Any) -> None:
    engine.step = 2
    engine.boundary()

    with pytest.raises(InvalidArgumentError, match="step: "):
        engine.harness.at_step_boundary(step)


def test_only_a_worker_that_owns_all_gpus_needs_no_barrier(start: Start) -> None:
    with pytest.raises(InvalidArgumentError, match="barrier: None, but this worker owns 1 of 2"):
        start(options(gpus=(0,)))
    with pytest.raises(InvalidArgumentError, match="barrier_every: 0"):
        start(barrier_every=0)


# The end.


def test_close_says_goodbye(server: RunningSessions, engine: Engine) -> None:
    stream = server.joined()
    stream.fence()
    closing = threading.Thread(target=engine.close, args=("the engine stops",))
    closing.start()

    assert stream.expect("goodbye").reason == "the engine stops"
    assert stream.half_closed.wait(WAIT)
    assert closing.is_alive()
    stream.end()
    closing.join(WAIT)
    assert not closing.is_alive()
    engine.close()


def test_close_waits_at_most_its_timeout(server: RunningSessions, engine: Engine) -> None:
    stream = server.joined()
    stream.fence()
    engine.close(timeout=0.01)

    assert stream.over.wait(WAIT)


def test_close_does_not_wait_for_an_absent_server(server: RunningSessions, start: Start) -> None:
    engine = start(retry=RetryPolicy(initial_backoff=1000.0, max_backoff=1000.0), random=lambda: 1)
    server.stop()
    engine.event("disconnected")
    closing = threading.Thread(target=engine.close, kwargs={"timeout": 1000.0}, daemon=True)
    closing.start()
    closing.join(WAIT)
    assert not closing.is_alive()


def test_a_closed_session_says_so(start: Start) -> None:
    engine = start()
    session = engine.session
    engine.close()

    for call in (
        lambda: session.record(np.ones((3, 4), int), 0, 0),
        session.applied,
        lambda: session.regroup("group 2", FIRST),
    ):
        with pytest.raises(ClientClosedError, match="make another one"):
            call()
    assert not session.connected
    assert session.placement == FIRST
