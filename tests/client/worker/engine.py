"""An engine around a session of either kind, so that each test is written once."""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from tests.client.worker.server import WAIT, Stream, offer_of
from trimtab_client import (
    AsyncWorkerSession,
    Flip,
    Placement,
    RetryPolicy,
    SwitchOffer,
    Topology,
    Version,
    WorkerOptions,
    WorkerSession,
)
from trimtab_protocol.messages import Abort, Accepted, Applied, Commit, Prepared

LAYERS, EXPERTS, GPUS, SLOTS = 3, 4, 2, 3
TOPOLOGY = Topology(num_replicas=GPUS * SLOTS, num_gpus=GPUS)
FIRST = Placement.untouched(LAYERS, EXPERTS, GPUS * SLOTS, GPUS)
QUICK = RetryPolicy(initial_backoff=0.001, max_backoff=0.01)
SLOW = RetryPolicy(initial_backoff=1000.0, max_backoff=1000.0)
AT_ONCE = RetryPolicy(initial_backoff=0.0, max_backoff=0.0)


def changed(placement: Placement, layer: int = 1, turn: int = 1) -> Placement:
    """Another placement: one layer's slots are rotated."""
    phy2log = placement.phy2log.copy()
    phy2log[layer] = np.roll(phy2log[layer], turn)
    return Placement.of(phy2log, placement.num_experts, placement.num_gpus)


SECOND = changed(FIRST)
ZERO, ONE, TWO = (Version(1, generation) for generation in range(3))
COMMIT, ABORT = Commit(ONE, SECOND.digest), Abort(ONE)


def options(**others: Any) -> WorkerOptions:
    values = {
        "deployment": "model",
        "worker": "worker 0",
        "topology": TOPOLOGY,
        "placement": FIRST,
        "scope": "source",
        "bytes_per_expert": 100,
        "staging_slots": 100,
        "group_id": "group 1",
        "incarnation": 7,
    }
    return WorkerOptions(**{**values, **others})


class MinBarrier:
    """The elementwise minimum over ranks, by threads that wait for each other."""

    def __init__(self, ranks: int) -> None:
        self._brought: list[Sequence[int]] = []
        self._result: tuple[int, ...] = ()
        self._all_brought = threading.Barrier(ranks, self._reduce, WAIT)
        self._lock = threading.Lock()

    def __call__(self, values: Sequence[int]) -> tuple[int, ...]:
        with self._lock:
            self._brought.append(values)
        self._all_brought.wait()
        # Not replaced before all ranks are here again, and so have read it.
        return self._result

    def _reduce(self) -> None:
        self._result = tuple(min(column) for column in zip(*self._brought, strict=True))
        self._brought = []


class SyncSession:
    """`WorkerSession`, as it is."""

    def __init__(self, *args: Any, **others: Any) -> None:
        self.session = WorkerSession(*args, **others)

    def call(self, method: str, *args: Any, **others: Any) -> Any:
        return getattr(self.session, method)(*args, **others)

    def end(self) -> None:
        pass


class AsyncSession:
    """`AsyncWorkerSession`, on an event loop of its own."""

    def __init__(self, *args: Any, barrier: Any = None, **others: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

        async def wait_on_a_thread(values: Sequence[int]) -> Any:
            return await asyncio.to_thread(barrier, values)

        async def make() -> AsyncWorkerSession:
            return AsyncWorkerSession(*args, barrier=barrier and wait_on_a_thread, **others)

        try:
            self.session = self._wait(make())
        except BaseException:
            self.end()
            raise

    def call(self, method: str, *args: Any, **others: Any) -> Any:
        async def on_the_loop() -> Any:
            result = getattr(self.session, method)(*args, **others)
            return await result if inspect.isawaitable(result) else result

        return None if self._loop.is_closed() else self._wait(on_the_loop())

    def end(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(2 * WAIT)


KINDS = {"sync": SyncSession, "async": AsyncSession}


class Engine:
    """A rank's engine: its transfers end when the test says so."""

    def __init__(
        self, kind: str, target: str, worker: WorkerOptions | None = None, **others: Any
    ) -> None:
        self.offers: queue.SimpleQueue[tuple[SwitchOffer, Future[Any]]] = queue.SimpleQueue()
        self.aborted: queue.SimpleQueue[SwitchOffer] = queue.SimpleQueue()
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.log: list[str] = []
        self.step = 0
        callbacks: dict[str, Callable[[Any], Any]] = {
            "on_offer": self._on_offer,
            "on_abort": self._on_abort,
            "on_state": self.events.put,
        }
        self.harness: Any = KINDS[kind](
            target, worker or options(), **{**callbacks, "retry": QUICK, **others}
        )
        self.session: WorkerSession | AsyncWorkerSession = self.harness.session

    def next_offer(self) -> tuple[SwitchOffer, Future[Any]]:
        return self.offers.get(timeout=WAIT)

    def next_aborted(self) -> SwitchOffer:
        return self.aborted.get(timeout=WAIT)

    def event(self, kind: str) -> Any:
        """The next event of a kind."""
        while (event := self.events.get(timeout=WAIT)).kind != kind:
            pass
        return event.values

    def begin(self, step: Any) -> Flip | None:
        flip: Flip | None = self.harness.call("at_step_boundary", step)
        return flip

    def boundary(self) -> Flip | None:
        """Begin the next step."""
        self.step += 1
        return self.begin(self.step)

    def steps_until_flip(self) -> Flip:
        """Take steps until there is something to flip to, as it comes when it comes."""
        end = time.monotonic() + WAIT
        while (flip := self.boundary()) is None:
            assert time.monotonic() < end, "no flip"
        return flip

    def apply(self) -> None:
        self.harness.call("applied")

    def record(self, *args: Any, **others: Any) -> None:
        self.session.record(*args, **others)

    def regroup(self, *args: Any, **others: Any) -> None:
        self.step = 0
        self.harness.call("regroup", *args, **others)

    def close(self, *args: Any, **others: Any) -> None:
        self.harness.call("close", *args, **others)
        self.harness.end()

    def _on_offer(self, offer: SwitchOffer) -> Future[Any]:
        self.log.append("offer")
        transfer: Future[Any] = Future()
        self.offers.put((offer, transfer))
        return transfer

    def _on_abort(self, offer: SwitchOffer) -> None:
        self.log.append("abort")
        self.aborted.put(offer)


Start = Callable[..., Engine]


def offer(stream: Stream, version: Version = ONE, **others: Any) -> None:
    values = {"base_version": ZERO, "base": FIRST, "new": SECOND, "gpus": (0, 1), **others}
    stream.tell(offer_of(version, **values))


# How far a switch to 1.1 has come.


def accepted(stream: Stream, engine: Engine) -> Future[Any]:
    """An offer is accepted; its transfer runs, and is returned."""
    offer(stream)
    assert stream.expect("accepted") == Accepted(ONE, SECOND.digest)
    return engine.next_offer()[1]


def prepared(stream: Stream, engine: Engine) -> None:
    accepted(stream, engine).set_result(None)
    assert stream.expect("prepared") == Prepared(ONE, SECOND.digest)


def armed(stream: Stream, engine: Engine) -> None:
    prepared(stream, engine)
    stream.tell(COMMIT)
    stream.fence()


def flipped(stream: Stream, engine: Engine) -> Applied:
    """The engine has flipped; what it says is returned."""
    armed(stream, engine)
    engine.steps_until_flip()
    engine.apply()
    return stream.expect("applied")
