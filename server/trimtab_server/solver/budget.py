"""How much weight traffic a new placement may cause."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_server.domain.errors import require, require_all, store_integers

DEFAULT_MIN_GAIN = 1e-3
"""Half the moves of 0 at nearly the same balance: `make bench ARGS=constants` on three
replays gives live balancedness 0.919, 0.929, 0.890 with 4 moves a layer and window at 0, and
0.916, 0.928, 0.891 with 2 at 1e-3; at 3e-3 the second begins to fall."""

_COST_UNIT = 2.0**-20


@dataclass(frozen=True)
class Budget:
    """How much weight traffic a placement may cause.

    Attributes:
        max_moves_per_layer: most net moves in a layer; None: no limit.
        max_moves: most net moves over all layers; None: no limit.
        min_gain: least fall of a layer's sum of squared GPU loads for each net
            move, where the mean GPU load is 1: one number for all layers, or one for
            each.
        cross_node_cost: what a move from another node counts, where one inside a
            node counts 1.
    """

    max_moves_per_layer: int | None = None
    max_moves: int | None = None
    min_gain: float | tuple[float, ...] = DEFAULT_MIN_GAIN
    cross_node_cost: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "max_moves_per_layer": self.max_moves_per_layer,
            "max_moves": self.max_moves,
        }
        given = {name: value for name, value in limits.items() if value is not None}
        store_integers(self, **given)
        require_all(
            *((value >= 0, name, f"{value} is negative") for name, value in given.items()),
            *(
                (0 <= gain < float("inf"), "min_gain", f"{gain} is not >= 0")
                for gain in self._gains
            ),
            (
                1 <= self.cross_node_cost < float("inf"),
                "cross_node_cost",
                f"{self.cross_node_cost} is below 1",
            ),
        )

    def min_gains(self, layers: int) -> list[float]:
        """`min_gain` of each layer.

        Raises:
            InvalidArgumentError: it is given for another number of layers.
        """
        if not isinstance(self.min_gain, tuple):
            return [float(self.min_gain)] * layers
        seen = f"has {len(self.min_gain)} numbers for {layers} layers"
        require(len(self.min_gain) == layers, "min_gain", seen)
        return [float(gain) for gain in self.min_gain]

    @property
    def _gains(self) -> tuple[float, ...]:
        return self.min_gain if isinstance(self.min_gain, tuple) else (self.min_gain,)

    @property
    def counted_cross_node_cost(self) -> float:
        """`cross_node_cost` as steps count it: rounded down to a multiple of 2**-20.

        So sums of costs are exact, and five moves at 1.2 fit into a budget of 6.
        """
        cost = float(self.cross_node_cost)
        return cost - cost % _COST_UNIT
