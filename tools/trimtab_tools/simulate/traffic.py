"""What is routed: which experts the tokens of a step go to, and the tokens themselves.

Legend for all shapes: L layers, E logical experts, H hidden, N tokens of a rank in a step, over
all layers, W tokens of all ranks in a window.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from trimtab_client.placement import IntArray
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.trace import Counts

FloatArray = npt.NDArray[np.float32]

_LARGEST = 4
_RANDOM_BITS = 32


class RoutedTokens(NamedTuple):
    """What a rank routes in a step, layer after layer.

    Attributes:
        layer_N: int32.
        expert_N: int32, of that layer.
    """

    layer_N: IntArray
    expert_N: IntArray


class Traffic(Protocol):
    """What one rank routes."""

    def of_step(self, step: int) -> RoutedTokens:
        """The experts of its tokens. The same whenever, and in whatever process, it is asked."""


def traffic_of(options: FleetOptions, rank: int) -> Traffic:
    """The traffic of a rank: of the fleet's trace, or made up."""
    return SyntheticTraffic(options, rank) if options.trace is None else TraceReplay(options, rank)


def tokens_of(options: FleetOptions, rank: int, step: int, number: int) -> FloatArray:
    """The tokens that a rank routes in a step, float32 [N, H]: small integers."""
    rng = np.random.default_rng((options.seed, 2, rank, step))
    shape = number, options.hidden
    return rng.integers(-_LARGEST, _LARGEST + 1, shape, np.int8).astype(np.float32)


class SyntheticTraffic:
    """Experts of uneven popularity, other ones in each layer; the same in every process.

    Args:
        options: sizes and seed.
        rank: whose tokens.
    """

    def __init__(self, options: FleetOptions, rank: int) -> None:
        self._options = options
        self._rank = rank
        rng = np.random.default_rng((options.seed, 1))
        popular_E = 1.0 / np.arange(1, options.experts + 1)
        popular_LE = rng.permuted(np.tile(popular_E, (options.layers, 1)), axis=1)
        self._cumulative_LE = np.cumsum(popular_LE, axis=1) / popular_E.sum()

    def of_step(self, step: int) -> RoutedTokens:
        """See `Traffic`."""
        options = self._options
        rng = np.random.default_rng((options.seed, 4, self._rank, step))
        drawn_LT = rng.random((options.layers, options.tokens))
        expert_LT = (drawn_LT[:, :, None] >= self._cumulative_LE[:, None, :-1]).sum(axis=2)
        layer_N = np.repeat(np.arange(options.layers, dtype=np.int32), options.tokens)
        return RoutedTokens(layer_N, expert_LT.ravel().astype(np.int32))


class TraceReplay:
    """A trace: over the steps of a window, all ranks together route exactly its counts.

    Each expert's tokens are spread evenly over the steps, and those of a layer and step over
    the ranks, at random. After the last window it goes on with that.

    Args:
        options: the trace, and how it is replayed.
        rank: whose tokens.
    """

    def __init__(self, options: FleetOptions, rank: int) -> None:
        self._options = options
        self._rank = rank
        self._load_TLE = options.loads().load_TLE
        self._window = -1
        self._by_step: list[RoutedTokens] = []

    def of_step(self, step: int) -> RoutedTokens:
        """See `Traffic`."""
        steps = self._options.steps_per_window
        window = min(step // steps, len(self._load_TLE) - 1)
        if window != self._window:
            self._window, self._by_step = window, self._share_of(window)
        return self._by_step[step % steps]

    def _share_of(self, window: int) -> list[RoutedTokens]:
        """What this rank routes in each step of a window."""
        options = self._options
        steps, layers = options.steps_per_window, options.layers
        rng = np.random.default_rng((options.seed, 5, window))
        layer_W, expert_W, nth_W = _all_of(self._load_TLE[window])
        # So that it is not in the first steps of every layer that there is one token more.
        step_W = (nth_W + rng.integers(steps, size=layers)[layer_W]) % steps
        cell_W = step_W * layers + layer_W
        drawn_W = rng.integers(1 << _RANDOM_BITS, size=len(cell_W))
        order_W = np.argsort((cell_W << _RANDOM_BITS) + drawn_W)
        cell_W = cell_W[order_W]
        rank_W = (_nth_of_run(cell_W) + cell_W) % options.ranks
        own_N = np.flatnonzero(rank_W == self._rank)
        bounds = np.searchsorted(cell_W[own_N], np.arange(1, steps) * layers)
        taken_N = order_W[own_N]
        return [
            RoutedTokens(layer_W[which].astype(np.int32), expert_W[which].astype(np.int32))
            for which in np.split(taken_N, bounds)
        ]


def _all_of(load_LE: Counts) -> tuple[Counts, Counts, Counts]:
    """All tokens of a window, by layer and expert: both, and which of its layer each one is."""
    layers, experts = load_LE.shape
    which_W = np.repeat(np.arange(layers * experts), load_LE.ravel())
    layer_W = which_W // experts
    return layer_W, which_W % experts, _nth_of_run(layer_W)


def _nth_of_run(key_W: Counts) -> Counts:
    """For each element of an ascending array, how many equal ones stand before it."""
    return np.arange(len(key_W)) - np.searchsorted(key_W, key_W)
