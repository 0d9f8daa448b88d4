"""What the planner answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from trimtab_protocol.placement import Placement
from trimtab_server.domain.balance import Evaluation
from trimtab_server.domain.moves import Moves
from trimtab_server.domain.placement import of_layers, placement_of, with_layers
from trimtab_server.solver.plan import Plan


@dataclass(frozen=True)
class Placed:
    """A placement with its moves and balance, on the CPU.

    `moves` and `before` are None if there was no current placement.
    """

    placement: Placement
    moves: Moves | None
    before: Evaluation | None
    after: Evaluation

    def of_layers(self, layer_A: npt.NDArray[np.int64]) -> Placed:
        """The result for some layers, ascending."""
        kept_A = np.arange(len(layer_A))
        return Placed(
            of_layers(self.placement, layer_A),
            None if self.moves is None else Moves.none().with_layers(kept_A, self.moves, layer_A),
            None if self.before is None else self.before.of_layers(layer_A),
            self.after.of_layers(layer_A),
        )

    def with_layers(
        self, layer_A: npt.NDArray[np.int64], other: Placed, row_A: npt.NDArray[np.int64]
    ) -> Placed:
        """This result, with layers `layer_A`, ascending, replaced by rows `row_A` of `other`."""
        moves = None
        if self.moves is not None and other.moves is not None:
            moves = self.moves.with_layers(layer_A, other.moves, row_A)
        return Placed(
            with_layers(self.placement, layer_A, other.placement, row_A),
            moves,
            self.before,
            self.after.with_layers(layer_A, other.after, row_A),
        )


def urgent_first(placed: Placed) -> tuple[int, ...]:
    """All layers, those first whose imbalance falls most. Empty without a current placement."""
    if placed.before is None:
        return ()
    return largest_first((placed.before.imbalance - placed.after.imbalance).numpy())


def largest_first(gain_L: npt.NDArray[np.float64]) -> tuple[int, ...]:
    """All layers, those first that gain most."""
    return tuple((-gain_L).argsort(kind="stable").tolist())


def placed_on_cpu(plan: Plan, num_experts: int, num_gpus: int) -> Placed:
    """The result of a plan, copied from the device."""
    placement = placement_of(plan.phy2log, num_experts, num_gpus)
    _ = placement.digest  # computed here, off the event loop
    return Placed(
        placement,
        None if plan.moves is None else _tensors_on_cpu(plan.moves),
        None if plan.before is None else _tensors_on_cpu(plan.before),
        _tensors_on_cpu(plan.after),
    )


_Value = TypeVar("_Value", Moves, Evaluation)


def _tensors_on_cpu(value: _Value) -> _Value:
    return replace(value, **{name: tensor.cpu() for name, tensor in vars(value).items()})
