"""The part of a session that both kinds share, and that waits for nothing but a lock."""

from __future__ import annotations

import logging
import os
import random as random_module
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Generic, SupportsIndex, TypeVar

import numpy.typing as npt

from trimtab_client.channel import DEFAULT_MAX_MESSAGE_BYTES, TlsOptions, open_channel
from trimtab_client.checks import integer
from trimtab_client.exceptions import ClientClosedError, invalid
from trimtab_client.placement import Placement
from trimtab_client.retry import RetryPolicy
from trimtab_client.worker.backoff import DEFAULT_RECONNECT, Backoff
from trimtab_client.worker.connector import Connector
from trimtab_client.worker.context import Job, SessionContext
from trimtab_client.worker.counters import MAX_STEP
from trimtab_client.worker.effect_runner import EffectRunner, Exits
from trimtab_client.worker.inbound import Inbound
from trimtab_client.worker.offer import Flip, StateEvent, SwitchOffer
from trimtab_client.worker.options import WorkerOptions, check_gpus, check_placement
from trimtab_client.worker.switch import Effect, Prepare
from trimtab_client.worker.switch import Flip as FlipEffect
from trimtab_protocol.version import Version

logger = logging.getLogger(__package__)

OnOfferT = TypeVar("OnOfferT", bound=Callable[[SwitchOffer], Any])
BarrierT = TypeVar("BarrierT", bound=Callable[[Sequence[int]], Any])


class SessionBase(ABC, Generic[OnOfferT, BarrierT]):
    """What the engine calls, and the objects that the session's loop uses.

    `context` explains which thread does what. All calls raise ClientClosedError if the session
    is closed, or belongs to another process.
    """

    _exits: ClassVar[Exits] = ()
    """Exceptions of callbacks that the loop raises again once they are logged."""

    def __init__(
        self,
        target: str,
        options: WorkerOptions,
        *,
        on_offer: OnOfferT,
        on_abort: Callable[[SwitchOffer], object],
        on_state: Callable[[StateEvent], object] | None = None,
        barrier: BarrierT | None = None,
        barrier_every: int = 1,
        tls: TlsOptions | None = None,
        retry: RetryPolicy = DEFAULT_RECONNECT,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._topology = options.topology
        self._on_offer = on_offer
        self._barrier = barrier
        self._check_ownership(len(options.gpus))
        self._barrier_every = integer(barrier_every, "barrier_every", low=1)
        self._max_backoff = retry.max_backoff
        self._context = context = SessionContext(options, self._run_soon, clock)
        self._effects = EffectRunner(context, self._begin_transfer, on_abort, on_state, self._exits)
        self._inbound = Inbound(context, self._effects)
        self._connector = Connector(context, self._effects, Backoff(retry, random))
        self._step = -1
        self._flip: Flip | None = None
        self._pid = os.getpid()
        self._closed = False
        connect = partial(open_channel, target=target, tls=tls, max_message_bytes=max_message_bytes)
        self._start(f"trimtab-{options.worker}", connect)

    @property
    def in_force(self) -> Version | None:
        """The version of the worker's placement; None before its first epoch."""
        return self._context.switch.in_force

    @property
    def placement(self) -> Placement:
        """The worker's placement. Only `applied` and `regroup` change it."""
        return self._context.switch.placement

    @property
    def connected(self) -> bool:
        """Whether a server answers. The worker serves on if none does."""
        stream = self._context.open_stream
        return stream is not None and stream.greeted

    def record(
        self,
        counts: npt.ArrayLike,
        first_step: SupportsIndex,
        last_step: SupportsIndex,
        *,
        per_slot: bool = False,
    ) -> None:
        """Add the token counts of some steps. Takes microseconds; any thread may call it.

        Args:
            counts: integers [L, E], tokens of each logical expert; or, if `per_slot`,
                [L, own slots], tokens of each slot of the worker's GPUs, in slot order.
            first_step: the first of the steps, at least that of the last call. Counts by
                slot must not reach back over a flip: record them before `applied`.
            last_step: the last of them, at least that of the last call, at most 2**63 - 2.
            per_slot: whether `counts` counts slots instead of experts.

        Raises:
            InvalidArgumentError: the counts have another shape, are not integers or are negative,
                they are more tokens than a server takes (2**62, with those before), or the steps
                run backwards or too far. Nothing has been added.
        """
        self._require_open()
        self._context.counters.record(counts, first_step, last_step, per_slot=per_slot)

    def forget_load(self) -> None:
        """Discard the load recorded so far. Takes microseconds; any thread may call it.

        Call it after a warm-up, the capture of graphs or a benchmark: their tokens say nothing
        about later ones, and experts would be moved because of them. Each worker that has
        recorded such tokens has to call it. The server discards them with the next report,
        which is sent at once, or as soon as there is a server.
        """
        self._require_open()
        self._context.counters.forget()
        self._context.run_soon(self._connector.report_soon)

    def applied(self) -> None:
        """Tell the session that the flip is done, so that steps may continue.

        Raises:
            InvalidArgumentError: `at_step_boundary` has returned no flip.
        """
        self._require_open()
        flip, switch = self._flip, self._context.switch
        if flip is None:
            raise invalid("applied", "there is no flip to apply: `at_step_boundary` returns them")
        self._context.counters.flipped(flip.placement, switch.gpus, flip.step)
        with self._context.lock:
            self._post_effects(switch.flipped(flip.step))
        self._flip = None

    def regroup(
        self, group_id: str, placement: Placement, gpus: Sequence[int] | None = None
    ) -> None:
        """Tell the session that the engine has formed a new group, and reconnect at once.

        The new group may number its steps from 0 again. An offer that the worker holds is given
        up: `on_abort` is called once a running transfer has ended.

        Args:
            group_id: the new group's name.
            placement: the placement of all its ranks.
            gpus: the GPUs that this worker owns now; None if they are the same. A session
                without a barrier has to own all GPUs.

        Raises:
            InvalidArgumentError: the name is not new, the placement or the GPUs do not fit
                the topology, or a flip has been returned and not applied.
        """
        self._require_open()
        switch = self._context.switch
        if gpus is not None:
            self._check_ownership(len(gpus) or self._topology.num_gpus)
        if self._flip is not None:
            raise invalid("regroup", f"apply the flip to {self._flip.version} first")
        if not isinstance(group_id, str) or group_id in ("", switch.group_id):
            raise invalid("group_id", f"{group_id!r} is not the name of a new group")
        check_placement(placement, self._topology)
        owned = switch.gpus if gpus is None else check_gpus(tuple(gpus), self._topology)
        self._context.counters.regrouped(placement, owned)
        with self._context.lock:
            self._post_effects(switch.regroup(group_id, placement, owned))
            self._context.run_soon(self._connector.leave_old_group)
        self._step = -1

    def _require_open(self) -> None:
        if os.getpid() != self._pid:
            raise ClientClosedError(
                f"the session belongs to process {self._pid} and does not survive a fork: "
                "make one in the process that uses it"
            )
        if self._closed:
            raise ClientClosedError("the session is closed: make another one")

    def _check_ownership(self, owned: int) -> None:
        num_gpus = self._topology.num_gpus
        if self._barrier is None and owned != num_gpus:
            seen = f"None, but this worker owns {owned} of {num_gpus} GPUs"
            raise invalid("barrier", f"{seen}: only a worker that owns all GPUs needs no barrier")

    # The engine's thread.

    def _contribution(self, step: SupportsIndex) -> tuple[int, int] | None:
        """The rank's input to the barrier before this step; None if it calls no barrier then."""
        self._require_open()
        number = integer(step, "step", low=0, high=MAX_STEP)
        if self._flip is not None:
            rule = f"apply the flip to {self._flip.version} first, and call `applied`"
            raise invalid("step", f"{number} cannot begin: {rule}")
        if number <= self._step:
            raise invalid("step", f"{number} does not come after {self._step}")
        self._step = number
        if number % self._barrier_every:
            return None
        with self._context.lock:
            return self._context.switch.contribute()

    def _agreed(self, result: Any) -> Flip | None:
        """The flip to make after the barrier returned `result`; None if there is none."""
        try:
            accepted, armed = map(int, result)
        except (TypeError, ValueError) as error:
            raise invalid("barrier", f"{result!r} is not two integers") from error
        with self._context.lock:
            effects = self._context.switch.agreed(accepted, armed)
            if effects and not isinstance(effects[0], FlipEffect | Prepare):
                self._post_effects(effects)
                return None
        for effect in effects:
            match effect:
                case FlipEffect(offer):
                    self._flip = Flip(offer, self._step)
                case Prepare(offer):
                    # All ranks are at the same step here, and nowhere else.
                    self._effects.prepare(offer)
        return self._flip

    def _post_effects(self, effects: list[Effect]) -> None:
        """Let the loop run effects. The caller holds the lock."""
        self._context.run_soon(partial(self._effects.run, self._context.stream, effects))

    # The loop.

    @abstractmethod
    def _start(self, name: str, connect: Callable[[Any], Any]) -> None:
        """Start the loop. `connect` opens the channel of `grpc` or `grpc.aio`."""

    @abstractmethod
    def _run_soon(self, job: Job) -> None:
        """Let the loop run a job. Any thread may call this."""

    def _begin_transfer(self, offer: SwitchOffer) -> Any:
        return self._on_offer(offer)

    def _run(self, job: Job) -> None:
        """Run a job. Its failure does not end the session: the engine serves on."""
        try:
            job()
        except self._exits:
            raise
        except BaseException:
            logger.exception("the session failed at %r, and continues", job)
