"""The tokens of a step: which experts they go to, and their values.

Legend for all shapes: L layers, E logical experts, H hidden, N tokens of a rank in a step, over
all layers, W tokens of all ranks in a window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trimtab_client.placement import IntArray
from trimtab_tools.conformance.adapter import FloatArray
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.trace import Counts

_MAX_VALUE = 4
_RANDOM_BITS = 32


class RoutedTokens(NamedTuple):
    """Where a rank's tokens of a step go, layer after layer.

    Attributes:
        layer_N: int32.
        expert_N: int32, an expert of that layer.
    """

    layer_N: IntArray
    expert_N: IntArray


def make_traffic(options: FleetOptions, rank: int) -> SyntheticTraffic | TraceReplay:
    """The traffic of a rank: a replay of the fleet's trace, or synthetic without one."""
    kind = SyntheticTraffic if options.trace is None else TraceReplay
    return kind(options, rank)


def token_values(options: FleetOptions, rank: int, step: int, number: int) -> FloatArray:
    """The values of the tokens of a rank and step, float32 [N, H]: small integers."""
    rng = np.random.default_rng((options.seed, 2, rank, step))
    shape = number, options.hidden
    return rng.integers(-_MAX_VALUE, _MAX_VALUE + 1, shape, np.int8).astype(np.float32)


class SyntheticTraffic:
    """Random experts of uneven popularity, which differs from layer to layer."""

    def __init__(self, options: FleetOptions, rank: int) -> None:
        self._options = options
        self._rank = rank
        rng = np.random.default_rng((options.seed, 1))
        popular_E = 1.0 / np.arange(1, options.experts + 1)
        popular_LE = rng.permuted(np.tile(popular_E, (options.layers, 1)), axis=1)
        self._cumulative_LE = np.cumsum(popular_LE, axis=1) / popular_E.sum()

    def routed(self, step: int) -> RoutedTokens:
        """The tokens of a step: the same in each process and at each call."""
        options = self._options
        rng = np.random.default_rng((options.seed, 4, self._rank, step))
        drawn_LT = rng.random((options.layers, options.tokens))
        expert_LT = (drawn_LT[:, :, None] >= self._cumulative_LE[:, None, :-1]).sum(axis=2)
        layer_N = np.repeat(np.arange(options.layers, dtype=np.int32), options.tokens)
        return RoutedTokens(layer_N, expert_LT.ravel().astype(np.int32))


class TraceReplay:
    """Replays a trace: in the steps of a window, all ranks together route exactly its counts.

    The tokens of each expert are spread evenly over the steps, and those of a layer and step
    over the ranks, at random. After the last window, that window is repeated.
    """

    def __init__(self, options: FleetOptions, rank: int) -> None:
        self._options = options
        self._rank = rank
        self._load_TLE = options.loads()
        self._window = -1
        self._by_step: list[RoutedTokens] = []

    def routed(self, step: int) -> RoutedTokens:
        """The tokens of a step: the same in each process and at each call."""
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
        layer_W, expert_W, index_W = _all_tokens(self._load_TLE[window])
        # Starts each layer at another step, so that not all have their extra tokens in the first.
        step_W = (index_W + rng.integers(steps, size=layers)[layer_W]) % steps
        cell_W = step_W * layers + layer_W
        drawn_W = rng.integers(1 << _RANDOM_BITS, size=len(cell_W))
        order_W = np.argsort((cell_W << _RANDOM_BITS) + drawn_W)
        cell_W = cell_W[order_W]
        rank_W = (_index_in_run(cell_W) + cell_W) % options.ranks
        own_N = np.flatnonzero(rank_W == self._rank)
        bounds = np.searchsorted(cell_W[own_N], np.arange(1, steps) * layers)
        return [
            RoutedTokens(layer_W[taken].astype(np.int32), expert_W[taken].astype(np.int32))
            for taken in np.split(order_W[own_N], bounds)
        ]


def _all_tokens(load_LE: Counts) -> tuple[Counts, Counts, Counts]:
    """The layer and expert of each token of a window, and its index in the layer; all [W]."""
    layers, experts = load_LE.shape
    cell_W = np.repeat(np.arange(layers * experts), load_LE.ravel())
    layer_W = cell_W // experts
    return layer_W, cell_W % experts, _index_in_run(layer_W)


def _index_in_run(key_W: Counts) -> Counts:
    """For each element of an ascending array, the number of equal ones before it."""
    return np.arange(len(key_W)) - np.searchsorted(key_W, key_W)
