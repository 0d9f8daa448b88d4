"""The two halves of a stream for threads: gRPC's own thread pumps, the caller's consumes."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import grpc
import numpy.typing as npt

from trimtab_client.results import StreamItem
from trimtab_client.status import error_of_call
from trimtab_client.streaming import (
    LoadsFailed,
    Request,
    StreamEnd,
    StreamSetup,
    Taken,
    check_end,
    decode_item,
    encode_load,
)


class Pump:
    """Takes loads from the caller's iterator, at most `max_in_flight` beyond the results read."""

    def __init__(self, setup: StreamSetup, loads: Iterable[npt.ArrayLike]) -> None:
        self._config = setup.config
        self._loads = iter(loads)
        self._slots = threading.Semaphore(setup.max_in_flight)
        self._ended = False
        self.taken: queue.SimpleQueue[Taken] = queue.SimpleQueue()

    def requests(self) -> Iterator[Request]:
        """The messages to send. gRPC iterates over them on a thread of its own."""
        yield self._config
        for index in itertools.count():
            self._slots.acquire()
            if self._ended:
                return
            taken, request = self._take(index)
            self.taken.put(taken)
            if request is not None:
                yield request
            elif not isinstance(taken, StreamItem):
                return

    def free_slot(self) -> None:
        """Let one more load be taken."""
        self._slots.release()

    def end(self) -> None:
        """Take no more loads, because the call is over. Wakes both halves."""
        self._ended = True
        self._slots.release()
        self.taken.put(StreamEnd.CALL_ENDED)

    def _take(self, index: int) -> tuple[Taken, Request | None]:
        try:
            return encode_load(index, next(self._loads))
        except StopIteration:
            return StreamEnd.NO_MORE_LOADS, None
        except BaseException as error:  # noqa: BLE001 - raised again, by the consumer
            return LoadsFailed(error), None


def stream_items(
    start: Callable[[Iterator[Request]], Any], pump: Pump, num_gpus: int
) -> Generator[StreamItem]:
    """Yield the result of each load, in order. The call starts with the first `next`."""
    call = start(pump.requests())
    if not call.add_callback(pump.end):
        pump.end()
    try:
        while not isinstance(taken := pump.taken.get(), StreamEnd):
            if isinstance(taken, LoadsFailed):
                raise taken.error
            if isinstance(taken, StreamItem):
                yield taken
            else:
                yield decode_item(taken, _next(call), num_gpus)
            # The slot is freed only now, when the caller asks for the next result: so a load
            # may depend on all results but the last `max_in_flight` - 1.
            pump.free_slot()
        check_end(taken, _next(call))
    finally:
        call.cancel()  # and so, by the callback, the pump


def _next(call: Any) -> Any:
    """The next response, or None at the end of the stream."""
    try:
        return next(call, None)
    except grpc.RpcError as failure:
        raise error_of_call(failure) from failure
