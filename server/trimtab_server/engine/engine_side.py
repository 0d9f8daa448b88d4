"""What an engine that switches by itself does with a deployment: it asks, and reports.

To the rollout, such an engine is a worker that owns all GPUs. It has a session without a stream:
an offer is the answer to the engine's next call, and the call after that, or a report of layers,
tells whether the engine took it. So pins, pauses, roll-backs, the history and the store are the
same code for both kinds of deployments.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from trimtab_protocol.engine import EngineCall, SwitchedLayers
from trimtab_protocol.history import Member
from trimtab_protocol.messages import Abort, Applied, Discarded, Hello, Prepared, Refused
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import (
    FailedPreconditionError,
    UnavailableError,
    malformed_as_invalid,
    require_all,
)
from trimtab_server.domain.placement import count_moves
from trimtab_server.engine.automation import Automation
from trimtab_server.engine.decision_log import LoggedDecision
from trimtab_server.engine.deployment_core import DeploymentCore
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.events import RETRY_AFTER_S
from trimtab_server.engine.gpu_loads import best_loads, gpu_loads_of
from trimtab_server.engine.join_request import JoinRequest
from trimtab_server.engine.outbox import Outbox
from trimtab_server.engine.serial_executor import SerialExecutor
from trimtab_server.engine.sessions import WorkerSession
from trimtab_server.engine.worker_side import WorkerSide
from trimtab_server.policy.policy import Mode
from trimtab_server.rollout.open_switch import Phase
from trimtab_server.rollout.record import Record, Stage, Switch

WORKER = "engine"
"""The name of the worker that stands for an engine."""


class EngineRequest(NamedTuple):
    """An engine's call, and the deployment as the engine sees it."""

    call: EngineCall
    spec: DeploymentSpec


@dataclass(frozen=True)
class EngineAnswer:
    """What an engine is told.

    Attributes:
        in_force: version of the placement in force.
        switch: the version to switch to; None if the engine keeps its placement.
        moves: net moves of that switch.
        logged: the decision of the policy; None if it was not asked.
        kept_because: why the engine keeps its placement; empty if it does not.
    """

    in_force: Version
    switch: Switch | None
    moves: int
    logged: LoggedDecision | None
    kept_because: str


class EngineSide:
    """A deployment as its engine uses it. Calls are answered one at a time.

    All methods raise NotFoundError if the deployment was deleted, and UnavailableError if the
    store fails.
    """

    def __init__(self, core: DeploymentCore, automation: Automation, workers: WorkerSide) -> None:
        self._core = core
        self._automation = automation
        self._workers = workers
        self._executor = SerialExecutor()
        self._session: WorkerSession | None = None
        # The layers in force, as far as they were reported.
        self._phy2log_LR = np.zeros((0, 0), np.int32)
        # The version that the engine was told to switch to.
        self._told: Version | None = None
        self._last: tuple[object, EngineAnswer] | None = None

    async def rebalance(self, request: EngineRequest, number: int) -> EngineAnswer:
        """Count an engine's load, see what is in force, and say what to switch to.

        A call that is repeated gets the answer that it got. If the caller is cancelled, its call
        is still carried out, so that the answer is there when it comes again.

        Args:
            request: the call.
            number: for a session, should a new one begin.

        Raises:
            InvalidArgumentError: the report has fallen, or is of another shape.
            FailedPreconditionError: the deployment is of another shape, or a newer process of the
                engine has called.
            ResourceExhaustedError: the solver has too much to do.
        """
        with self._core.usage.call():
            return await self._executor.run(self._rebalance(request, number))

    async def switched(self, switched: SwitchedLayers) -> Version:
        """Note layers that the engine has switched; returns the version in force.

        Raises:
            InvalidArgumentError: the deployment has no such layers, slots or experts.
            FailedPreconditionError: no call of `rebalance` came from this process of the engine.
        """
        with self._core.usage.call():
            return await self._executor.run(self._switched(switched))

    async def wait_idle(self) -> None:
        """Return once all calls have been answered, also those whose callers have given up."""
        await self._executor.wait_idle()

    def leave(self) -> None:
        """End the engine's session. Its next call begins another one."""
        session, self._session = self._session, None
        if session is not None:
            self._workers.leave(session)

    async def _rebalance(self, request: EngineRequest, number: int) -> EngineAnswer:
        call = request.call
        key = call.setup.incarnation, call.report.seq, call.placement.digest
        async with self._executor.exclusive():
            if self._session is not None and self._last is not None and self._last[0] == key:
                answer = self._last[1]
                if answer.switch == self._offered:
                    return answer
            if not self._has_session_of(call.setup.incarnation):
                await self._join(request, number)
            # The caller may have given up, but the call is the engine's.
            self._core.usage.touch()
            is_new = self._count(call)
            await self._take_split(call)
            await self._follow(request, number)
            logged = None
            if is_new and self._offered is None:
                logged = await self._automation.rebalance_once(call.step_seconds)
            answer = self._answer(logged)
            self._last = key, answer
            return answer

    async def _take_split(self, call: EngineCall) -> None:
        core, predict = self._core, gpu_loads_of(call)
        core.is_observed = call.setup.observes
        if predict is best_loads and core.gpu_loads is not best_loads:
            # The first prediction may compile, which takes seconds.
            await asyncio.to_thread(predict, call.placement, core.loads.load())
        core.gpu_loads = predict

    async def _switched(self, switched: SwitchedLayers) -> Version:
        async with self._executor.exclusive():
            session, spec = self._session, self._core.spec
            if session is None or not self._has_session_of(switched.incarnation):
                raise FailedPreconditionError(
                    f"incarnation: the last call of Rebalance was not of {switched.incarnation}"
                )
            layers_K, rows_KR = switched.layers_K, switched.phy2log_KR
            slots = spec.topology.num_replicas
            require_all(
                (layers_K[-1] < spec.num_layers, "layers", f"{layers_K[-1]} is not a layer"),
                (rows_KR.shape[1] == slots, "phy2log", f"{rows_KR.shape[1]} slots are not {slots}"),
            )
            with malformed_as_invalid():
                rows = Placement.of(rows_KR, spec.num_experts, spec.topology.num_gpus)
            self._phy2log_LR[layers_K] = rows.phy2log
            offered = self._offered
            if offered and np.array_equal(self._phy2log_LR, offered.placement.phy2log):
                await self._applied(session, offered)
            in_force, _ = self._core.rollout.record.served
            return in_force

    # What is in force.

    @property
    def _offered(self) -> Switch | None:
        """The switch that the engine may take; None if there is none."""
        rollout = self._core.rollout
        return rollout.record.switch if rollout.phase is Phase.OFFERED else None

    async def _follow(self, request: EngineRequest, number: int) -> None:
        """See what became of the last answer, and take what is in force as it is."""
        placement, session, offered = request.call.placement, self._session, self._offered
        self._phy2log_LR = placement.phy2log.copy()
        _, served = self._core.rollout.record.served
        if session is not None and offered is not None and placement == offered.placement:
            await self._applied(session, offered)
        elif placement != served:
            await self._join(request, number)
        elif session is not None and offered is not None and offered.version == self._told:
            digest, reason = offered.placement.digest, "the engine kept its placement"
            await self._workers.answer(session, Refused(offered.version, digest, reason))

    def _has_session_of(self, incarnation: int) -> bool:
        session = self._session
        return session is not None and session.request.hello.incarnation == incarnation

    async def _applied(self, session: WorkerSession, switch: Switch) -> None:
        about = switch.version, switch.placement.digest
        await self._workers.answer(session, Prepared(*about))
        await self._workers.answer(session, Applied(*about, self._core.loads.step + 1))

    async def _join(self, request: EngineRequest, number: int) -> None:
        """Begin a session: of the group that serves if nothing has changed, or of a new one."""
        setup, placement = request.call.setup, request.call.placement
        core = self._core
        # A call that does not belong here must not end the session of the engine that does.
        core.spec.updated_from(request.spec).require_agreement(request.spec, core.name)
        # After a failure of the store the rollout is ahead of it: any change brings it back.
        await core.apply(list)
        record = core.rollout.record
        member = None if record.epoch is None else record.epoch.members.get(WORKER)
        if member is not None and member.incarnation > setup.incarnation:
            raise FailedPreconditionError(
                f"incarnation: {setup.incarnation} is below {member.incarnation}: a newer process "
                f"calls for deployment {setup.deployment!r}"
            )
        self.leave()
        self._told = self._last = None
        new = Hello(
            group_id=uuid.uuid4().hex,
            worker=WORKER,
            incarnation=setup.incarnation,
            stream=number,
            gpus=tuple(range(setup.topology.num_gpus)),
            placement=placement,
        )
        slots = placement.phy2log.size // setup.topology.num_gpus
        join = JoinRequest(setup.deployment, request.spec, _continued(record, new), slots, 0)
        outbox = _EngineOutbox(number, self._aborted, self._ended)
        self._session = await self._workers.join(number, join, outbox)

    # What the server says between two calls.

    def _aborted(self, session: int, version: Version) -> None:
        core = self._core
        core.submit(lambda: core.rollout.answered(session, Discarded(version)))

    def _ended(self, session: int) -> None:
        if self._session is not None and self._session.number == session:
            self.leave()

    # The answer.

    def _count(self, call: EngineCall) -> bool:
        """Count the load of a call; returns False if it was counted before."""
        if self._session is None:
            raise UnavailableError("the server is shutting down", RETRY_AFTER_S)
        before = self._core.loads.last_seq_of(WORKER)
        return self._workers.report(self._session, call.report) > before

    def _answer(self, logged: LoggedDecision | None) -> EngineAnswer:
        in_force, placement = self._core.rollout.record.served
        switch = self._offered
        if switch is None:
            return EngineAnswer(in_force, None, 0, logged, self._kept_because(logged))
        self._told = switch.version
        return EngineAnswer(in_force, switch, count_moves(placement, switch.placement), logged, "")

    def _kept_because(self, logged: LoggedDecision | None) -> str:
        rollout = self._core.rollout
        blocked = self._core.blocked_reason
        if logged is not None:
            decision, detail = logged.decision, logged.detail
            if decision.moves:
                detail = blocked or f"not carried out in {logged.mode.value} mode"
            return f"{decision.reason.value}: {detail}" if detail else decision.reason.value
        if rollout.record.pinned is not None:
            return f"pinned: {blocked or 'the placement is in force'}"
        if self._core.mode is Mode.OFF:
            return "the policy is off"
        return blocked or "the report was counted before"


class _EngineOutbox(Outbox):
    """Answers by itself what is said between two calls, since nobody reads it.

    Args:
        number: of the session.
        aborted: called with a version that is aborted.
        ended: called when the session is to end.
    """

    def __init__(
        self, number: int, aborted: Callable[[int, Version], None], ended: Callable[[int], None]
    ) -> None:
        super().__init__()
        self._number = number
        self._aborted = aborted
        self._on_end = ended

    def put(self, kind: str, message: Any) -> None:
        """Take a message. Offers and commits stand in the rollout, where calls find them."""
        if isinstance(message, Abort):
            self._aborted(self._number, message.version)
        elif kind == "drain":
            self._on_end(self._number)

    def close(self, error: BaseException) -> None:
        """End the session."""
        super().close(error)
        self._on_end(self._number)


def _continued(record: Record, hello: Hello) -> Hello:
    """The first message of a session, as a member of the group that serves.

    Unchanged if that group was of another process, or has another placement in force.
    """
    epoch, switch = record.epoch, record.switch
    new = Member(hello.incarnation, hello.gpus)
    if epoch is None or epoch.members.get(WORKER) != new:
        return hello
    version, placement = record.served
    if switch is not None and switch.stage is Stage.COMMITTED:
        # The store failed between the commit and its end.
        version, placement = switch.version, switch.placement
    if placement.digest != hello.placement.digest:
        return hello
    return replace(hello, group_id=epoch.group_id, in_force=version)
