"""A thread that runs one call after another, like an engine's or a session's thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class SerialThread:
    """A thread that runs one call after another.

    It is a daemon: if it is stuck in an adapter, the process can still end.
    """

    def __init__(self, name: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"conformance {name}", daemon=True).start()

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run a call after all earlier ones; the future has its result or its exception."""
        done: Future[Any] = Future()

        def task() -> None:
            try:
                done.set_result(call(*arguments))
            except BaseException as error:  # noqa: BLE001 - the future has it
                done.set_exception(error)

        self._tasks.put(task)
        return done

    def end(self) -> None:
        """End the thread after all calls so far."""
        self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
