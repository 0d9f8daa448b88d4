"""A small engine of several ranks: threads, a real barrier, and weights that compute.

What a rank computes for a token goes through its own maps to whatever weights lie in the
slot that they name, on whichever rank. So a flip that comes too early or too late, or copies
the wrong weights, gives a wrong result, not just a wrong label.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from trimtab_client import (
    Flip,
    Placement,
    RetryPolicy,
    SwitchOffer,
    Topology,
    WorkerOptions,
    WorkerSession,
)
from trimtab_client.worker.events import StateEvent

LAYERS, EXPERTS, SLOTS_PER_GPU = 3, 8, 3
WAIT = 60
_STEP_S = 0.002
_QUICK = RetryPolicy(initial_backoff=0.01, max_backoff=0.2)

WEIGHTS = np.arange(1.0, 1 + LAYERS * EXPERTS).reshape(LAYERS, EXPERTS)
"""The one weight of each expert: what it multiplies a token by."""


class Rank:
    """One GPU: its slots, its staging, and its session."""

    def __init__(self, fleet: Fleet, index: int, target: str) -> None:
        self.fleet = fleet
        self.index = index
        self.slots = fleet.placement.phy2log.shape[1] // fleet.ranks
        self.maps = fleet.placement
        own = fleet.placement.phy2log[:, self._own]
        self.weights = np.take_along_axis(WEIGHTS, own, axis=1)
        self.staging: dict[tuple[int, int], float] = {}
        self.copier = ThreadPoolExecutor(1)
        self.session = WorkerSession(
            target,
            WorkerOptions(
                deployment=fleet.deployment,
                worker=f"rank {index}",
                topology=Topology(num_replicas=fleet.ranks * self.slots, num_gpus=fleet.ranks),
                placement=fleet.placement,
                scope="local",
                bytes_per_expert=8,
                gpus=(index,),
                group_id="group",
                staging_slots=self.slots,
            ),
            on_offer=lambda offer: self.copier.submit(self._fill, offer),
            on_abort=lambda offer: self.staging.clear(),
            on_state=fleet.told,
            barrier=self._barrier,
            retry=_QUICK,
        )

    @property
    def _own(self) -> slice:
        return slice(self.index * self.slots, (self.index + 1) * self.slots)

    def run(self) -> None:
        """The engine's loop, until all ranks have heard that it shall end."""
        for step in itertools.count():
            flip = self.session.at_step_boundary(step)
            if flip is not None:
                self._flip(flip)
                self.session.applied()
            self.fleet.flipped.wait(WAIT)
            self._forward(step)
            # As if a device computed: the sessions' threads get the interpreter meanwhile.
            time.sleep(_STEP_S)
            self.session.record(np.ones((LAYERS, self.slots), np.int64), step, step, per_slot=True)
            if self.fleet.ended:
                return

    def _barrier(self, values: Sequence[int]) -> Sequence[int]:
        *result, self.fleet.goes_on = self.fleet.agree([*values, 0 if self.fleet.ending else 1])
        return result

    def _fill(self, offer: SwitchOffer) -> None:
        """Read what comes from other ranks; they serve by it, and so do not change it."""
        for (layer, slot, expert), sources in zip(
            offer.receives.tolist(), offer.receive_sources.tolist(), strict=True
        ):
            source = self.fleet.members[sources[0]]
            held = offer.base_placement.phy2log[layer, source._own].tolist()
            self.staging[layer, slot] = source.weights[layer, held.index(expert)]

    def _flip(self, flip: Flip) -> None:
        offer, before = flip.offer, self.weights.copy()
        received = {(layer, slot): expert for layer, slot, expert in offer.receives.tolist()}
        for (layer, slot), weight in self.staging.items():
            self.weights[layer, slot - self._own.start] = weight
        for layer, source, target, expert in offer.copies.tolist():
            came = received.get((layer, source)) == expert
            weight = self.weights if came else before
            first = self._own.start
            self.weights[layer, target - first] = weight[layer, source - first]
        self.staging.clear()
        self.maps = flip.placement

    def _forward(self, step: int) -> None:
        """One token for each expert and replica: each must be multiplied by its expert's weight."""
        for layer, slot in np.ndindex(self.maps.phy2log.shape):
            expert = self.maps.phy2log[layer, slot]
            holder = self.fleet.members[slot // self.slots]
            if holder.weights[layer, slot % self.slots] != WEIGHTS[layer, expert]:
                self.fleet.wrong.append(f"rank {self.index}, step {step}, {layer=}, {slot=}")


class Fleet:
    """All ranks of a group, and what they have in common. A context manager.

    Attributes:
        wrong: tokens that came out wrong.
        events: what the sessions tell, as (kind, values).
    """

    def __init__(
        self,
        target: str,
        ranks: int = 4,
        history: Path | None = None,
        deployment: str = "fleet",
    ) -> None:
        self.ranks = ranks
        self.deployment = deployment
        self.placement = Placement.untouched(LAYERS, EXPERTS, ranks * SLOTS_PER_GPU, ranks)
        self.wrong: list[str] = []
        self.events: queue.SimpleQueue[StateEvent] = queue.SimpleQueue()
        self.ending = False
        self.goes_on = 1
        self.flipped = threading.Barrier(ranks)
        self._brought: list[Sequence[int]] = []
        self._result: Sequence[int] = ()
        self._all_brought = threading.Barrier(ranks, self._reduce)
        self._lock = threading.Lock()
        self._history = history
        self.members: list[Rank] = []
        self.members += [Rank(self, index, target) for index in range(ranks)]
        self._threads = [threading.Thread(target=rank.run) for rank in self.members]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending = True
        for thread in self._threads:
            thread.join(WAIT)
        with ExitStack() as closing:
            for rank in self.members:
                closing.callback(rank.session.close)
                closing.callback(rank.copier.shutdown)

    @property
    def ended(self) -> bool:
        return self.goes_on == 0

    def agree(self, values: Sequence[int]) -> Sequence[int]:
        """The elementwise minimum over all ranks."""
        with self._lock:
            self._brought.append(values)
        self._all_brought.wait(WAIT)
        # Not replaced before all ranks are here again, and so have read it.
        return self._result

    def told(self, event: StateEvent) -> None:
        """What a session tells; what belongs into the history is written there."""
        if self._history is not None and event.kind in ("in_force", "flipped"):
            values = {"kind": event.kind, "deployment": self.deployment, **event.values}
            line = json.dumps(values, default=bytes.hex).encode() + b"\n"
            file = os.open(self._history, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, line)
            os.close(file)
        self.events.put(event)

    def until_all(self, kind: str, **values: Any) -> list[StateEvent]:
        """Wait until every rank has told of such an event."""
        found: dict[str, StateEvent] = {}
        while len(found) < self.ranks:
            event = self.events.get(timeout=WAIT)
            if event.kind == kind and values.items() <= event.values.items():
                found[event.values["worker"]] = event
        return list(found.values())

    def _reduce(self) -> None:
        self._result = tuple(min(column) for column in zip(*self._brought, strict=True))
        self._brought = []


def some_placement(fleet: Fleet, seed: int) -> Placement:
    """Every expert somewhere, and otherwise at random."""
    rng = np.random.default_rng(seed)
    slots = fleet.placement.phy2log.shape[1]
    spare = rng.integers(0, EXPERTS, (LAYERS, slots - EXPERTS))
    experts = np.tile(np.arange(EXPERTS), (LAYERS, 1))
    rows = rng.permuted(np.concatenate([experts, spare], axis=1), axis=1)
    return Placement.of(rows, EXPERTS, fleet.ranks)
