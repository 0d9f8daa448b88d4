"""Limits on the weight traffic that a new placement may cause."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_server.domain.errors import require, require_all, store_integers

DEFAULT_MIN_GAIN = 1e-3
"""Halves the moves that 0 would make, at nearly the same balance: on three replays `make bench
ARGS=constants` gives a live balancedness of 0.919, 0.929, 0.890 at 0, with 4 moves in each layer
and window, and 0.916, 0.928, 0.891 at 1e-3, with 2 moves; at 3e-3 the second begins to fall."""

_COST_UNIT = 2.0**-20
"""Sums of multiples of it are exact in float64: see `counted_cross_node_cost`."""


@dataclass(frozen=True)
class Budget:
    """Limits on the weight traffic that a placement may cause.

    Attributes:
        max_moves_per_layer: net moves allowed in each layer; None for no limit.
        max_moves: net moves allowed over all layers; None for no limit.
        min_gain: by how much each net move must lower its layer's sum of squared GPU
            loads at least, where the mean GPU load is 1: one number for all layers, or
            one for each.
        cross_node_cost: how many moves a move from another node counts as; a move inside
            a node counts as 1.
    """

    max_moves_per_layer: int | None = None
    max_moves: int | None = None
    min_gain: float | tuple[float, ...] = DEFAULT_MIN_GAIN
    cross_node_cost: float = 1.0

    def __post_init__(self) -> None:
        names = ("max_moves_per_layer", "max_moves")
        given = {name: vars(self)[name] for name in names if vars(self)[name] is not None}
        store_integers(self, **given)
        gains = self.min_gain if isinstance(self.min_gain, tuple) else (self.min_gain,)
        cost, infinite = self.cross_node_cost, float("inf")
        require_all(
            *((value >= 0, name, f"{value} is negative") for name, value in given.items()),
            *((0 <= gain < infinite, "min_gain", f"{gain} is not >= 0") for gain in gains),
            (1 <= cost < infinite, "cross_node_cost", f"{cost} is below 1"),
        )

    def min_gains(self, layers: int) -> list[float]:
        """`min_gain` of each layer.

        Raises:
            InvalidArgumentError: it has values for another number of layers.
        """
        if not isinstance(self.min_gain, tuple):
            return [float(self.min_gain)] * layers
        found = f"has {len(self.min_gain)} numbers for {layers} layers"
        require(len(self.min_gain) == layers, "min_gain", found)
        return [float(gain) for gain in self.min_gain]

    @property
    def counted_cross_node_cost(self) -> float:
        """`cross_node_cost` rounded down to a multiple of 2**-20, which steps are charged.

        So sums of costs are exact, and five moves at 1.2 fit into a budget of 6.
        """
        cost = float(self.cross_node_cost)
        return cost - cost % _COST_UNIT
