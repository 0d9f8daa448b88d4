"""The fleet's end of the pipes to its ranks: a thread that answers their collectives."""

from __future__ import annotations

import os
import queue
import selectors
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

from trimtab_tools.simulate.group import Answers, Group
from trimtab_tools.simulate.messages import Contribution, FromRank, ToRank


class Listener(Protocol):
    """Receives all messages that are no contributions. Called on the server's thread."""

    def received(self, member: int, message: FromRank) -> None:
        """A rank has sent a message."""

    def lost(self, member: int) -> None:
        """A rank's process has ended; its group is broken already."""

    def failed(self, error: Exception) -> None:
        """The server's thread has raised an error; the group is broken already."""


class CollectiveServer:
    """The pipes to the ranks, and the group that they form at present.

    Only `post` and `close` may be called from any thread; all else is for the server's own.

    Sending to a rank blocks until the rank reads. Only a stopped process does not read, and its
    group waits for it in any case.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._pipes: dict[int, Connection[ToRank, FromRank]] = {}
        self._group = Group("", ())
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._loop, name="trimtab-collectives", daemon=True)
        self._thread.start()

    def post(self, task: Callable[..., object], *arguments: object) -> None:
        """Have the server's thread call `task` soon."""
        self._tasks.put(partial(task, *arguments))
        os.write(self._wake, b"\0")

    def close(self) -> None:
        """End the thread and close the pipes. Ranks that still run then exit."""
        self._tasks.put(None)
        os.write(self._wake, b"\0")
        self._thread.join()
        self._selector.close()
        for pipe in self._pipes.values():
            pipe.close()
        os.close(self._woken)
        os.close(self._wake)

    def add(self, member: int, pipe: Connection[Any, Any]) -> None:
        """Begin to read a rank's messages."""
        self._pipes[member] = pipe
        self._selector.register(pipe, selectors.EVENT_READ, member)

    def send(self, member: int, message: ToRank) -> None:
        """Send a message to a rank, unless its process has ended."""
        pipe = self._pipes.get(member)
        if pipe is not None:
            with suppress(OSError):  # The loop reads the end of the pipe next.
                pipe.send(message)

    def form(self, group: Group) -> None:
        """Answer this group's collectives from now on."""
        self._group = group

    def break_up(self, reason: str) -> None:
        """End the present group: each member hears it at its next collective."""
        self._answer(self._group.break_up(reason))

    def _loop(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    os.read(self._woken, 1)
                    task = self._tasks.get()
                    if task is None:
                        return
                    self._run(task)
                else:
                    self._run(partial(self._read, key.data))

    def _run(self, task: Callable[[], object]) -> None:
        try:
            task()
        except Exception as error:  # noqa: BLE001 - the listener reports it
            self._answer(self._group.break_up(f"the fleet failed: {error}"))
            self._listener.failed(error)

    def _read(self, member: int) -> None:
        pipe = self._pipes[member]
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            self._selector.unregister(pipe)
            pipe.close()
            del self._pipes[member]
            if member in self._group.members:
                self.break_up(f"rank {member} has died")
            self._listener.lost(member)
            return
        if isinstance(message, Contribution):
            self._answer(self._group.contribute(member, message))
        else:
            self._listener.received(member, message)

    def _answer(self, answers: Answers) -> None:
        for member, answer in answers:
            self.send(member, answer)
