"""Loads to measure on: the real traces, and realistic ones of 256-expert models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

TRACES = Path(__file__).parents[2] / "examples" / "traces"

Loads = npt.NDArray[np.float64]


def trace(name: str) -> Loads:
    """`load` [T, L, E] of a trace."""
    with np.load(TRACES / f"{name}.npz") as file:
        load_TLE: Loads = file["load"].astype(np.float64)
    return load_TLE


def realistic(
    layers: int = 58, experts: int = 256, groups: int = 8, seed: int = 0, tokens: int = 100_000
) -> Loads:
    """Counts [L, E] shaped like those measured on a 256-expert model.

    Shares are lognormal in each layer, with a standard deviation of their logarithm of 0.48
    to 0.88 (0.65 on average). Groups of experts share a part of it, so that the heaviest
    group has about 1.66 times the mean. Layers are independent.
    """
    rng = np.random.default_rng(seed)
    sigma_L1 = np.clip(rng.normal(0.65, 0.08, (layers, 1)), 0.48, 0.88)
    of_group = 0.38
    group_LG = rng.normal(0, of_group, (layers, groups)).repeat(experts // groups, 1)
    own_LE = rng.normal(0, 1, (layers, experts)) * np.sqrt(sigma_L1**2 - of_group**2)
    share_LE = np.exp(group_LG + own_LE)
    share_LE /= share_LE.sum(1, keepdims=True)
    return rng.poisson(share_LE * tokens).astype(np.float64)


def lognormal(
    layers: int = 58, experts: int = 256, sigma: float = 1.0, seed: int = 0, tokens: int = 100_000
) -> Loads:
    """Counts [L, E] from independent lognormal shares, as in publications of the field."""
    rng = np.random.default_rng(seed)
    share_LE = rng.lognormal(0, sigma, (layers, experts))
    share_LE /= share_LE.sum(1, keepdims=True)
    return rng.poisson(share_LE * tokens).astype(np.float64)


def drifted(layers: int, experts: int) -> tuple[Loads, Loads]:
    """Two loads [L, E]: one to plan for, and the same with 30 % of it replaced."""
    before, other = realistic(layers, experts), realistic(layers, experts, seed=1)
    return before, 0.7 * before + 0.3 * other


def windows(name: str) -> Loads:
    """Every eighth window of a trace, all layers, as one batch of rows."""
    load_TLE = trace(name)
    return np.concatenate(list(load_TLE[:: 8 if len(load_TLE) > 8 else 1]))
