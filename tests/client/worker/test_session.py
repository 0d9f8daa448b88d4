"""A session's switches, and its server's and its engine's mistakes, against a scripted server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import grpc
import numpy as np
import pytest

from tests.client.worker.engine import (
    ABORT,
    COMMIT,
    FIRST,
    ONE,
    SECOND,
    SLOW,
    TWO,
    ZERO,
    Engine,
    MinBarrier,
    Start,
    accepted,
    armed,
    changed,
    flipped,
    offer,
    options,
    prepared,
)
from tests.client.worker.server import WAIT, RunningSessions, Stream, serving_bytes
from trimtab.v1alpha1 import session_service_pb2, switch_pb2
from trimtab_client import (
    ClientClosedError,
    InvalidArgumentError,
    Placement,
    Scope,
    Topology,
    Transfer,
    Version,
)
from trimtab_protocol.messages import (
    Abort,
    Accepted,
    Applied,
    Commit,
    Directive,
    Discarded,
    Hello,
    Prepared,
    WorkerSetup,
)

ACCEPTED, PREPARED = Accepted(ONE, SECOND.digest), Prepared(ONE, SECOND.digest)


def test_hello_carries_the_worker_options(server: RunningSessions, start: Start) -> None:
    limits = {"staging_slots": 4, "model": "deepseek-v3", "first_layer": 3}
    how = {"transfer": "collective", "scope": "local"}
    start(options(gpus=(1,), **how, **limits), barrier=lambda values: values)

    stream = server.next_stream()
    assert stream.hello == Hello("group 1", "worker 0", 7, 1, (1,), FIRST)
    assert stream.setup == WorkerSetup(
        deployment="model",
        topology=Topology(6, 2, 1, 1),
        num_experts=4,
        scope=Scope.LOCAL,
        transfer=Transfer.COLLECTIVE,
        max_layers_per_switch=0,
        bytes_per_expert=100,
        **limits,
    )


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


def test_a_switch_goes_from_offer_to_flip(stream: Stream, engine: Engine) -> None:
    assert engine.event("in_force")["version"] == ZERO
    offer(stream)

    assert stream.expect("accepted") == ACCEPTED
    asked, transfer = engine.next_offer()
    assert (asked.version, asked.base, asked.placement) == (ONE, ZERO, SECOND)
    assert (asked.base_placement, asked.base_digest) == (FIRST, FIRST.digest)
    assert asked.layers.tolist() == [1]
    assert asked.old_rows.tolist() == FIRST.phy2log[[1]].tolist()
    assert asked.new_rows.tolist() == SECOND.phy2log[[1]].tolist()
    assert asked.bytes_received == 100 * len(asked.receives)

    stream.fence()
    assert engine.boundary() is None
    transfer.set_result(None)
    assert stream.expect("prepared") == PREPARED
    stream.fence()
    assert engine.boundary() is None

    stream.tell(COMMIT)
    flip = engine.steps_until_flip()
    assert (flip.version, flip.placement, flip.step) == (ONE, SECOND, engine.step)
    assert flip.offer is asked
    assert flip.layers.tolist() == [1]
    assert flip.placement.log2phy.shape[0] == 3
    assert engine.session.placement == FIRST

    engine.apply()
    assert stream.expect("applied") == Applied(ONE, SECOND.digest, flip.step)
    assert engine.session.placement == SECOND
    assert engine.session.in_force == ONE
    event = engine.event("flipped")
    assert (event["version"], event["step"], event["worker"]) == (ONE, flip.step, "worker 0")
    assert engine.log == ["offer"]


def test_switches_follow_each_other(stream: Stream, engine: Engine) -> None:
    base, placement = ZERO, FIRST
    for generation in range(1, 6):
        version, new = Version(1, generation), changed(placement, generation % 3)
        offer(stream, version, base_version=base, base=placement, new=new)
        engine.next_offer()[1].set_result(None)
        stream.expect("accepted")
        stream.expect("prepared")
        stream.tell(Commit(version, new.digest))
        assert engine.steps_until_flip().placement == new
        engine.apply()
        stream.expect("applied")
        base, placement = version, new
    assert engine.session.in_force == Version(1, 5)


def test_a_late_offer_is_ignored(stream: Stream, engine: Engine) -> None:
    flipped(stream, engine)
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


# Refusals.


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        ({"gpus": (0,)}, "slot 3 of layer 1 changes, but gets no weights"),
        ({"base": SECOND, "new": FIRST}, "the digest of the base"),
    ],
    ids=["the part of another worker", "another base"],
)
def test_an_offer_that_does_not_fit_is_refused(
    stream: Stream, engine: Engine, spoilt: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    offer(stream, **spoilt)

    said = stream.expect("refused")
    assert (said.version, said.digest) == (ONE, spoilt.get("new", SECOND).digest)
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


def raises(_: object) -> bool:
    raise RuntimeError("out of pinned memory")


def ended(end: Callable[[Future[Any]], Any]) -> Callable[[object], Future[Any]]:
    """Begins a transfer, and ends it so."""

    def on_offer(_: object) -> Future[Any]:
        transfer: Future[Any] = Future()
        end(transfer)
        return transfer

    return on_offer


@pytest.mark.parametrize(
    ("on_offer", "reason"),
    [
        (raises, "out of pinned memory"),
        (lambda _: False, "the engine declined"),
        (lambda _: 7, "on_offer returned 7"),
        (ended(lambda transfer: transfer.set_exception(OSError("link down"))), "link down"),
        (ended(lambda transfer: transfer.cancel()), "cancelled"),
        (ended(lambda transfer: transfer.set_result(False)), "declined"),
    ],
    ids=["raises", "declines", "returns nonsense", "fails", "is cancelled", "says no"],
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
    offer(stream, TWO)
    stream.expect("accepted")


# Aborts.


def test_an_abort_waits_for_the_transfer(stream: Stream, engine: Engine) -> None:
    transfer = accepted(stream, engine)
    stream.tell(ABORT)
    stream.fence()
    assert engine.aborted.empty()

    transfer.set_result(None)
    assert stream.expect("discarded") == Discarded(ONE)
    assert engine.next_aborted().version == ONE
    assert engine.boundary() is None


def test_an_abort_of_what_is_prepared_frees_staging_first(
    server: RunningSessions, start: Start
) -> None:
    freed, begun = threading.Event(), threading.Event()

    def on_abort(_: object) -> None:
        begun.set()
        assert freed.wait(WAIT)

    engine = start(on_abort=on_abort)
    stream = server.joined()
    prepared(stream, engine)
    stream.tell(ABORT)
    assert begun.wait(WAIT)
    freed.set()

    stream.expect("discarded")


# Several ranks.


def ranks(start: Start, count: int, transfer: str = "pull") -> tuple[list[Engine], Placement]:
    """Engines of one group, with a GPU each, and what they serve with."""
    barrier = MinBarrier(count)
    placement = Placement.untouched(3, 4, 3 * count, count)
    group = {"placement": placement, "topology": Topology(3 * count, count), "transfer": transfer}
    workers = [options(worker=f"worker {rank}", gpus=(rank,), **group) for rank in range(count)]
    return [start(worker, barrier=barrier) for worker in workers], placement


class Loops:
    """Each engine's loop on a thread of its own, in step by their barrier, until all flip."""

    def __init__(self, engines: list[Engine]) -> None:
        self.flips: list[Any] = [None] * len(engines)
        self._threads = [
            threading.Thread(target=self._run, args=each) for each in enumerate(engines)
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
    return sorted((server.joined() for _ in engines), key=lambda stream: stream.hello.worker)


@pytest.mark.parametrize("count", [2, 3])
def test_all_ranks_flip_at_the_same_step(server: RunningSessions, start: Start, count: int) -> None:
    engines, placement = ranks(start, count)
    new = changed(placement)
    streams = streams_of(server, engines)
    for rank, stream in enumerate(streams):
        offer(stream, base=placement, new=new, gpus=(rank,))
        engines[rank].next_offer()[1].set_result(None)
        stream.expect("accepted")
        stream.expect("prepared")
    loops = Loops(engines)

    for stream in streams[:-1]:
        stream.tell(Commit(ONE, new.digest))
        stream.fence()
    assert loops.flips == [None] * count
    streams[-1].tell(Commit(ONE, new.digest))
    loops.join()

    steps = {stream.expect("applied").step for stream in streams}
    assert steps == {flip.step for flip in loops.flips}
    assert len(steps) == 1


def test_a_collective_transfer_begins_at_the_same_step(
    server: RunningSessions, start: Start
) -> None:
    engines, placement = ranks(start, 2, "collective")
    new = changed(placement)
    streams = streams_of(server, engines)
    loops = Loops(engines)
    offer(streams[0], base=placement, new=new, gpus=(0,))
    streams[0].expect("accepted")
    streams[0].fence()
    assert engines[0].offers.empty()

    offer(streams[1], base=placement, new=new, gpus=(1,))
    streams[1].expect("accepted")
    for engine, stream in zip(engines, streams, strict=True):
        engine.next_offer()[1].set_result(None)
        stream.expect("prepared")
    for stream in streams:
        stream.tell(Commit(ONE, new.digest))
    loops.join()
    assert loops.flips[0].step == loops.flips[1].step


def test_the_barrier_is_called_every_so_many_steps(start: Start) -> None:
    seen = []

    def barrier(values: Any) -> Any:
        seen.append(engine.step)
        return np.array(values)

    engine = start(barrier=barrier, barrier_every=3)
    for _ in range(10):
        engine.boundary()
    assert seen == [3, 6, 9]


def test_a_barrier_of_another_kind_is_an_error(start: Start) -> None:
    engine = start(barrier=lambda values: None)

    with pytest.raises(InvalidArgumentError, match="barrier: None is not two integers"):
        engine.boundary()


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
            {"commit": switch_pb2.Commit(version={"epoch": 1, "generation": 5}, digest=bytes(32))},
            "commit of 1.5, which this worker does not hold",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_message_that_makes_no_sense_is_ignored_and_logged(
    stream: Stream, engine: Engine, message: Any, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    stream.tell_raw(**message)

    assert complaint in engine.event("complaint")["reason"]
    assert complaint in caplog.text
    accepted(stream, engine)


def test_malformed_bytes_end_the_stream_but_not_the_session(start: Start) -> None:
    with serving_bytes(b"\xff\xff") as target:
        engine = start(target=target)
        assert engine.event("disconnected")["stream"] == 1
        assert engine.event("disconnected")["stream"] == 2
        assert engine.boundary() is None


def test_a_server_of_a_lower_term_is_ignored_and_reported_once(
    server: RunningSessions, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def ignored() -> list[str]:
        return [line for line in caplog.messages if "since one of term 5 has been heard" in line]

    stream = server.joined()
    stream.term = 5
    stream.tell(Directive(9, 0))
    # Its predecessor, and the same that has lost its store and started twice since.
    for times, term in enumerate([1, 1, 2], 1):
        stream.term = term
        for _ in range(3):
            stream.tell(Abort(TWO))
        assert f"a server of term {term}, since" in engine.event("complaint")["reason"]
        if times == 1:
            stream.term = 5
            stream.fence()
        assert len(ignored()) == times
        stream.end()
        stream = server.next_stream()
    assert stream.hello.in_force == ZERO


# Groups.


def test_a_new_group_connects_at_once(server: RunningSessions, start: Start) -> None:
    engine = start(retry=SLOW, random=lambda: 1)
    server.next_stream().fail(grpc.StatusCode.FAILED_PRECONDITION)
    engine.event("disconnected")
    for _ in range(5):
        engine.boundary()
    engine.regroup("group 2", SECOND)

    hello = server.next_stream().hello
    assert (hello.group_id, hello.stream, hello.placement) == ("group 2", 2, SECOND)
    assert engine.boundary() is None, "steps begin anew"


def test_a_new_group_gives_up_the_offer_of_the_old_one(
    server: RunningSessions, stream: Stream, engine: Engine
) -> None:
    armed(stream, engine)
    engine.regroup("group 2", FIRST)

    assert engine.next_aborted().version == ONE
    assert stream.over.wait(WAIT)
    hello = server.next_stream().hello
    assert (hello.held, hello.in_force) == (None, ZERO)
    assert engine.boundary() is None


def test_a_new_group_may_own_other_gpus(server: RunningSessions, start: Start) -> None:
    engine = start(options(gpus=(0,)), barrier=lambda values: values)
    assert server.next_stream().hello.gpus == (0,)
    engine.regroup("group 2", FIRST, gpus=[1])

    assert server.next_stream().hello.gpus == (1,)
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


def test_a_step_before_the_flip_is_applied_is_refused(stream: Stream, engine: Engine) -> None:
    armed(stream, engine)
    engine.steps_until_flip()

    with pytest.raises(InvalidArgumentError, match=r"apply the flip to 1\.1 first"):
        engine.boundary()
    with pytest.raises(InvalidArgumentError, match=r"apply the flip to 1\.1 first"):
        engine.regroup("group 2", FIRST)
    engine.apply()
    with pytest.raises(InvalidArgumentError, match="there is no flip to apply"):
        engine.apply()


@pytest.mark.parametrize("step", [3, 2, -1, 2.5, True, 2**63 - 1, 2**63], ids=str)
def test_steps_have_to_rise(engine: Engine, step: Any) -> None:
    engine.begin(3)

    with pytest.raises(InvalidArgumentError, match="step: "):
        engine.begin(step)
    assert engine.begin(4) is None


def test_only_a_worker_that_owns_all_gpus_needs_no_barrier(start: Start) -> None:
    with pytest.raises(InvalidArgumentError, match="barrier: None, but this worker owns 1 of 2"):
        start(options(gpus=(0,)))
    with pytest.raises(InvalidArgumentError, match="barrier_every: 0"):
        start(barrier_every=0)


# The end.


def test_close_says_goodbye(stream: Stream, engine: Engine) -> None:
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


def test_close_waits_at_most_its_timeout_and_leaves_no_thread(
    stream: Stream, engine: Engine
) -> None:
    stream.fence()
    engine.close(timeout=0.01)

    assert stream.over.wait(WAIT)
    assert not [each for each in threading.enumerate() if each.name.startswith("trimtab-worker 0")]


def test_close_does_not_wait_for_an_absent_server(server: RunningSessions, start: Start) -> None:
    engine = start(retry=SLOW, random=lambda: 1)
    server.stop()
    engine.event("disconnected")
    closing = threading.Thread(target=engine.close, kwargs={"timeout": 1000.0}, daemon=True)
    closing.start()
    closing.join(WAIT)
    assert not closing.is_alive()


def test_a_closed_session_says_so(engine: Engine) -> None:
    session = engine.session
    engine.close()

    for call in (
        lambda: session.record(np.ones((3, 4), int), 0, 0),
        session.forget_load,
        session.applied,
        lambda: session.regroup("group 2", FIRST),
    ):
        with pytest.raises(ClientClosedError, match="make another one"):
            call()
    assert not session.connected
    assert session.placement == FIRST
