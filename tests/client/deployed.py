"""A deployment of one worker, on a real server."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.client.worker.server import WAIT
from tests.servers import ServerProcess
from trimtab_client import (
    FailedPreconditionError,
    Placement,
    SwitchOffer,
    Topology,
    WorkerOptions,
    WorkerSession,
)

TOPOLOGY = Topology(num_replicas=6, num_gpus=2)
FIRST = Placement.untouched(3, 4, 6, 2)
SECOND = Placement.of(np.roll(FIRST.phy2log, 1, axis=1), 4, 2)


class Worker:
    """The only worker of a deployment, in its epoch.

    Attributes:
        aborted: set once an offer was aborted.
        events: what the session says of its state.
    """

    def __init__(
        self,
        server: ServerProcess,
        deployment: str,
        on_offer: Callable[[SwitchOffer], Any] = lambda _: None,
    ) -> None:
        self.deployment = deployment
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.aborted = threading.Event()
        self._step = 0
        self.session = WorkerSession(
            server.address,
            WorkerOptions(
                deployment=deployment,
                worker="w0",
                topology=TOPOLOGY,
                placement=FIRST,
                scope="source",
                bytes_per_expert=100,
                staging_slots=3,
            ),
            on_offer=on_offer,
            on_abort=lambda _: self.aborted.set(),
            on_state=self.events.put,
        )
        while self.events.get(timeout=WAIT).kind != "in_force":
            pass

    def flip(self) -> None:
        """Take steps until there is a flip, and apply it."""
        end = time.monotonic() + WAIT
        while self.session.at_step_boundary(self._step) is None:
            assert time.monotonic() < end, "no flip"
            self._step += 1
        self._step += 1
        self.session.applied()


def accepted(client: Any, deployment: str, **arguments: Any) -> Any:
    """The result of a trigger, once the server has heard from the worker what it waits for."""
    end = time.monotonic() + WAIT
    while True:
        try:
            return client.trigger(deployment, **arguments)
        except FailedPreconditionError:
            assert time.monotonic() < end
