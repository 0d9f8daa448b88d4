"""What both kinds of session are to an engine, beside the waiting."""

from __future__ import annotations

import os
import random as random_module
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import numpy.typing as npt

from trimtab_client.checks import integer
from trimtab_client.exceptions import ClientClosedError, invalid
from trimtab_client.placement import Placement
from trimtab_client.retry import RetryPolicy
from trimtab_client.worker.backoff import Backoff
from trimtab_client.worker.carrying import Callbacks
from trimtab_client.worker.core import SessionCore
from trimtab_client.worker.counters import MAX_STEP
from trimtab_client.worker.offer import Flip
from trimtab_client.worker.options import WorkerOptions
from trimtab_client.worker.shared import Post
from trimtab_protocol.version import Version


class SessionBase:
    """The part of a session that waits for nothing."""

    def __init__(
        self,
        options: WorkerOptions,
        callbacks: Callbacks,
        post: Post,
        barrier: object,
        barrier_every: int,
        retry: RetryPolicy,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._num_gpus = options.topology.num_gpus
        self._alone = barrier is None
        self._check_alone(len(options.gpus))
        self._every = integer(barrier_every, "barrier_every", low=1)
        self._core = SessionCore(options, callbacks, post, Backoff(retry, random), clock)
        self._pid = os.getpid()
        self._closed = False

    @property
    def in_force(self) -> Version | None:
        """The version that the worker serves by; None before its first epoch."""
        return self._core.in_force

    @property
    def placement(self) -> Placement:
        """What the worker serves by. Changes with `applied` and `regroup` only."""
        return self._core.placement

    @property
    def connected(self) -> bool:
        """Whether a server answers. The worker serves on where none does."""
        return self._core.connected

    def record(
        self,
        counts: npt.ArrayLike,
        first_step: SupportsIndex,
        last_step: SupportsIndex,
        *,
        per_slot: bool = False,
    ) -> None:
        """Add what some steps have counted. Takes microseconds; any thread may call it.

        Args:
            counts: integers [L, E], tokens of each logical expert; or, `per_slot`,
                [L, own slots], tokens of each slot of the worker's GPUs, in slot order.
            first_step: the first of the steps, at least that of the last call. Counts by
                slot must not reach back over a flip: record them before `applied`.
            last_step: the last of them, at least that of the last call, at most 2**63 - 2.
            per_slot: what `counts` counts.

        Raises:
            InvalidArgumentError: another shape, no integers, a negative count, or steps
                that run backwards or too far. Nothing has been added.
            ClientClosedError: the session is closed, or of another process.
        """
        self._require_open()
        self._core.counters.record(counts, first_step, last_step, per_slot=per_slot)

    def forget_load(self) -> None:
        """What was recorded so far is no traffic. Takes microseconds; any thread may call it.

        For after a warm-up, the capture of graphs, a benchmark: their tokens say nothing about
        those to come, and would have experts moved for them. Each worker that has recorded any
        calls it. The server forgets them with the next report, which goes out at once; while
        there is no server, with the first one that gets there.

        Raises:
            ClientClosedError: the session is closed, or of another process.
        """
        self._require_open()
        self._core.forget_load()

    def applied(self) -> None:
        """Staging is in the slots and the maps are replaced: go on with the step.

        Raises:
            InvalidArgumentError: `at_step_boundary` has returned nothing to apply.
            ClientClosedError: the session is closed, or of another process.
        """
        self._require_open()
        self._core.engine.applied()

    def regroup(
        self, group_id: str, placement: Placement, gpus: Sequence[int] | None = None
    ) -> None:
        """The engine has formed a new group: connect anew, at once. Steps may start anew.

        What is held of the old group is given up: `on_abort` follows, once a transfer that
        runs has ended.

        Args:
            group_id: the new group's name.
            placement: what all its ranks serve by.
            gpus: the GPUs that this worker owns now; None: the same. A session without a
                barrier has to own all.

        Raises:
            InvalidArgumentError: the name is not new, the placement or the GPUs do not fit
                the topology, or a flip has been returned and not applied.
            ClientClosedError: the session is closed, or of another process.
        """
        self._require_open()
        if gpus is not None:
            self._check_alone(len(gpus) or self._num_gpus)
        self._core.engine.regroup(group_id, placement, None if gpus is None else tuple(gpus))

    def _require_open(self) -> None:
        if os.getpid() != self._pid:
            raise ClientClosedError(
                f"the session belongs to process {self._pid} and does not survive a fork: "
                "make one in the process that uses it"
            )
        if self._closed:
            raise ClientClosedError("the session is closed: make another one")

    def _check_alone(self, owned: int) -> None:
        if self._alone and owned != self._num_gpus:
            seen = f"None, but this worker owns {owned} of {self._num_gpus} GPUs"
            raise invalid("barrier", f"{seen}: only the owner of all needs none")

    def _contribution(self, step: SupportsIndex) -> tuple[int, int] | None:
        """What to bring to the barrier before this step; None: there is none."""
        self._require_open()
        number = integer(step, "step", low=0, high=MAX_STEP)
        self._core.engine.begin_step(number)
        return None if number % self._every else self._core.engine.contribute()

    def _agreed(self, result: Any) -> Flip | None:
        try:
            accepted, armed = map(int, result)
        except (TypeError, ValueError) as error:
            raise invalid("barrier", f"{result!r} is not two integers") from error
        return self._core.engine.agreed(accepted, armed)


def default_random() -> float:
    """A number in [0, 1): it spreads load, and guards nothing."""
    return random_module.random()  # noqa: S311
