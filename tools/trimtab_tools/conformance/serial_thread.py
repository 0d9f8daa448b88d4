"""A thread that does one thing after another, as an engine's and a session's do."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class SerialThread:
    """The thread. A daemon: stuck in an adapter, it keeps no process from ending.

    Attributes:
        thread: it.
    """

    def __init__(self, name: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=f"conformance {name}", daemon=True)
        self.thread.start()

    def do(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have it call something, after all that came before; what comes of it is the future's."""
        done: Future[Any] = Future()

        def task() -> None:
            try:
                done.set_result(call(*arguments))
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                done.set_exception(error)

        self._tasks.put(task)
        return done

    def end(self) -> None:
        """Have it end, after all that came before."""
        self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
