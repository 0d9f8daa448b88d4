"""The engine's side of a session: what its thread calls, from step to step.

Here nothing waits but for the lock around the state machine.
"""

from __future__ import annotations

from functools import partial

from trimtab_client.exceptions import invalid
from trimtab_client.options import Topology
from trimtab_client.placement import Placement
from trimtab_client.worker.carrying import Carrier
from trimtab_client.worker.counters import Counters
from trimtab_client.worker.effects import Effect, Prepare
from trimtab_client.worker.effects import Flip as FlipEffect
from trimtab_client.worker.offer import Flip, SwitchOffer
from trimtab_client.worker.options import check_gpus, check_placement
from trimtab_client.worker.shared import Post, Shared, Task


class EngineSide:
    """Used by the engine's thread alone.

    Args:
        topology: the deployment's.
        shared: the state machine.
        counters: which count by the maps in force.
        carrier: begins collective transfers, and on the loop carries out all else.
        post: has the loop run a task.
        leave_old_group: the loop's task once a new group has formed.
    """

    def __init__(
        self,
        topology: Topology,
        shared: Shared,
        counters: Counters,
        carrier: Carrier,
        post: Post,
        leave_old_group: Task,
    ) -> None:
        self._topology = topology
        self._shared = shared
        self._counters = counters
        self._carrier = carrier
        self._post = post
        self._leave_old_group = leave_old_group
        self._step = -1
        self._flip: Flip | None = None

    def begin_step(self, step: int) -> None:
        """Check that the engine is where it may take a step.

        Raises:
            InvalidArgumentError: a flip has not been applied, or steps run backwards.
        """
        if self._flip is not None:
            rule = f"apply the flip to {self._flip.version} first, and call `applied`"
            raise invalid("step", f"{step} cannot begin: {rule}")
        if step <= self._step:
            raise invalid("step", f"{step} does not come after {self._step}")
        self._step = step

    def contribute(self) -> tuple[int, int]:
        """What this rank brings to the barrier."""
        with self._shared.lock:
            return self._shared.switch.contribute()

    def agreed(self, accepted: int, armed: int) -> Flip | None:
        """The barrier's result; what to flip to, if all can."""
        with self._shared.lock:
            effects = self._shared.switch.agreed(accepted, armed)
            if effects and not isinstance(effects[0], FlipEffect | Prepare):
                self._hand_over(effects)
                return None
        for effect in effects:
            match effect:
                case FlipEffect(offer=SwitchOffer() as offer):
                    self._flip = Flip(offer, self._step)
                case Prepare(offer=SwitchOffer() as offer):
                    # All ranks are at the same step here, and nowhere else.
                    self._carrier.prepare(offer)
        return self._flip

    def applied(self) -> None:
        """The flip is done.

        Raises:
            InvalidArgumentError: there is none to be done.
        """
        flip, switch = self._flip, self._shared.switch
        if flip is None:
            raise invalid("applied", "there is no flip to apply: `at_step_boundary` returns them")
        self._counters.flipped(flip.placement, switch.gpus, flip.step)
        with self._shared.lock:
            self._hand_over(switch.flipped(flip.step))
        self._flip = None

    def regroup(self, group_id: str, placement: Placement, gpus: tuple[int, ...] | None) -> None:
        """The engine has formed a new group.

        Raises:
            InvalidArgumentError: an argument is wrong, or a flip has not been applied.
        """
        switch = self._shared.switch
        if self._flip is not None:
            raise invalid("regroup", f"apply the flip to {self._flip.version} first")
        if not isinstance(group_id, str) or group_id in ("", switch.group_id):
            raise invalid("group_id", f"{group_id!r} is not the name of a new group")
        check_placement(placement, self._topology)
        owned = switch.gpus if gpus is None else check_gpus(gpus, self._topology)
        self._counters.regrouped(placement, owned)
        with self._shared.lock:
            effects = switch.regroup(group_id, placement, owned)
            self._hand_over(effects)
            self._post(self._leave_old_group)
        self._step = -1

    def _hand_over(self, effects: list[Effect]) -> None:
        """Have the loop carry out effects; called under the lock."""
        self._post(partial(self._carrier.perform, self._shared.link, effects))
