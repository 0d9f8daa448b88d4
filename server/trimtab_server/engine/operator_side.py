"""What operators do with a deployment: pin, pause, change its policy, start rollouts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from trimtab_protocol.history import Other
from trimtab_protocol.placement import Placement
from trimtab_server.domain.errors import FailedPreconditionError
from trimtab_server.engine.automation import Automation
from trimtab_server.engine.deployment_core import DeploymentCore
from trimtab_server.policy.policy import Mode, Policy
from trimtab_server.rollout.effects import Effect
from trimtab_server.rollout.record import Origin

_WHAT_TO_DO = (
    "give it time (wait_seconds; --wait), or pin the placement (--pin), which is then "
    "switched to as soon as possible"
)

_LOOK_AGAIN_S = 1.0

_T = TypeVar("_T")


class OperatorSide:
    """A deployment as its operators use it.

    Each method raises NotFoundError once it is deleted, and UnavailableError if the store fails.
    """

    def __init__(self, core: DeploymentCore, automation: Automation) -> None:
        self._core = core
        self._automation = automation

    async def claim(self) -> None:
        """Keep the deployment as one that an operator has created.

        Raises:
            UnavailableError: the store failed.
        """
        core = self._core

        async def claim() -> None:
            claimed = replace(core.store.definition, by_operator=True)
            with core.events.reporting_store_errors():
                await core.store.save_definition(claimed)
            core.store.definition = claimed

        await core.run_exclusive(claim)

    async def in_turn(self, attempt: Callable[[], Awaitable[_T]], wait_seconds: float = 0.0) -> _T:
        """Make an attempt to begin a rollout, and repeat it until it succeeds or the time is over.

        Meanwhile the policy begins no rollout. If there is anything to wait for, a rollout of the
        policy goes no further than its open switch. A pause or a pin is not waited for, nor is
        the server's end.

        Args:
            attempt: calls `move_to`; others may do so first.
            wait_seconds: how long to wait, in all, until a switch can be offered.

        Raises:
            FailedPreconditionError: what the last attempt raised, with what to do about it.
            NotFoundError: the deployment was deleted meanwhile.
        """
        core, end = self._core, asyncio.get_running_loop().time() + wait_seconds
        core.operators_waiting += 1
        try:
            while True:
                await self._wait_until(end)
                try:
                    return await attempt()
                except FailedPreconditionError as error:
                    left = end - asyncio.get_running_loop().time()
                    if not self._may_end_by_itself or left <= 0:
                        raise self._advised(error, wait_seconds) from error
        finally:
            core.operators_waiting -= 1

    async def move_to(self, target: Placement, order: Sequence[int] = ()) -> None:
        """Begin a rollout to a placement, in switches that the workers have room for.

        Returns once the first switch is offered; the others follow. An abort ends the rollout.

        Args:
            target: the placement to reach.
            order: layers, the most urgent first.

        Raises:
            FailedPreconditionError: nothing can be offered now, or the deployment is pinned.
        """
        await self._core.start_rollout(
            target, order, Origin.TRIGGERED, lambda: self._core.pinned_reason
        )

    async def pin(
        self, placement: Placement | None, origin: Origin = Origin.PINNED
    ) -> Placement | None:
        """Stay at this placement, or unpin for None; returns the placement pinned before."""
        core = self._core

        def pin() -> list[Effect]:
            # A rollout that is under way may lead elsewhere.
            if core.rollout.record.pinned is not None or placement is not None:
                core.driver.staged.abandon()
            return core.rollout.pin(placement, origin)

        before = await core.apply(pin)
        await self._automation.go_to_pin()
        return before.pinned

    async def update_policy(self, changed: Callable[[Policy], Policy]) -> Policy:
        """Change the policy, from the next decision on; returns the policy before.

        Args:
            changed: returns the new policy for the current one.

        Raises:
            InvalidArgumentError: the new policy is invalid.
            UnavailableError: the store failed. It may have the new policy: repeat the call.
        """
        core = self._core

        async def update() -> Policy:
            before, policy = core.policy, changed(core.policy)
            with core.events.reporting_store_errors():
                await core.store.save_definition(replace(core.store.definition, policy=policy))
            # A worker that joined meanwhile may have changed the spec.
            self._automation.adopt(replace(core.store.definition, policy=policy))
            if policy.mode is not Mode.ACTIVE:
                self._automation.abandon_own_target()
            return before

        return await core.run_exclusive(update)

    async def forget_load(self) -> None:
        """Forget the load, since nothing that was reported so far was traffic.

        Raises:
            UnavailableError: the store failed. The load may be back after a restart: repeat the
                call.
        """
        self._core.loads.reset_load()
        self._automation.reset()
        self._core.events.note(Other("load_forgotten"))
        with self._core.events.reporting_store_errors():
            await self._core.save_counters()

    async def pause(self, reason: str) -> str | None:
        """Offer nothing until `resume`; returns why it was paused before, if it was."""
        before = await self._core.apply(lambda: self._core.rollout.pause(reason))
        return before.paused

    async def resume(self) -> str | None:
        """Allow offers again; returns why it was paused, if it was."""
        before = await self._core.apply(lambda: self._core.rollout.resume())
        return before.paused

    @property
    def _may_end_by_itself(self) -> bool:
        """Whether what blocks a switch now, if anything does, may end without an operator."""
        rollout = self._core.rollout
        held = rollout.record.paused is not None or rollout.record.pinned is not None
        over = rollout.is_draining or self._core.is_deleted
        return self._core.blocked_reason is not None and not held and not over

    async def _wait_until(self, end: float) -> None:
        """Return once a switch can be offered, nothing can be waited for, or the time is over."""
        if end <= asyncio.get_running_loop().time() or not self._may_end_by_itself:
            return
        await self._core.run_exclusive(self._abandon_own_target)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await self._until_ready()
        # Raises NotFoundError if the deployment was deleted meanwhile.
        await self._core.run_exclusive(self._abandon_own_target)

    async def _until_ready(self) -> None:
        while self._may_end_by_itself:
            # The store's failures end without a change of the rollout.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._core.changed()

    def _advised(self, error: FailedPreconditionError, waited: float) -> FailedPreconditionError:
        """The error, with what to do about it if that may help."""
        # A pin, too, would have to be stored.
        if not self._may_end_by_itself or self._core.store.blocked_reason is not None:
            return error
        after = f" after {waited:g} s" if waited > 0 else ""
        return FailedPreconditionError(f"{error}{after}; {_WHAT_TO_DO}")

    async def _abandon_own_target(self) -> None:
        self._automation.abandon_own_target()
