"""Noise for the restarts: a hash of counters, and so the same on every device."""

from __future__ import annotations

import torch
from torch import Tensor

AMPLITUDE = 819
"""By how much a sort key is scaled up or down at most, in 1/4096: twenty per cent.

Chosen with `make bench ARGS=noise` (tests/bench/RESULTS.md): at 288 slots on 72 GPUs, less noise
finds worse packings (0.9979 at 1 %, 0.9985 from 10 % on), and more finds none that are better.
"""

UNIT = 4096
"""The factor that stands for 1: a key of 30 bits times a factor stays below 2**43."""
_MASK = 0xFFFFFFFF


def key_factors(seed: int, restarts: int, num_items: int, device: torch.device) -> Tensor:
    """Factors of the sort keys, int64 [restarts, n], in units of 1 / UNIT.

    Restart 0 has no noise. The other factors depend on (seed, restart, item) only, not on
    the row or the state of a generator, so batching does not change them.
    """
    item_I = torch.arange(num_items, device=device)
    restart_T1 = torch.arange(restarts, device=device).unsqueeze(1)
    seed %= 1 << 64
    seed_hash = _mix(_mix(torch.tensor(seed & _MASK)) + (seed >> 32) & _MASK).to(device)
    hash_TI = _mix(_mix(seed_hash + restart_T1 & _MASK) + item_I & _MASK)
    noise_TI = hash_TI % (2 * AMPLITUDE + 1) - AMPLITUDE
    return UNIT + torch.where(restart_T1 > 0, noise_TI, 0)


def _mix(x: Tensor) -> Tensor:
    """The 32-bit finaliser "lowbias32" found by Wellons' hash prospector."""
    x = _multiply(x ^ (x >> 16), 0x7FEB352D)
    x = _multiply(x ^ (x >> 15), 0x846CA68B)
    return x ^ (x >> 16)


def _multiply(x: Tensor, factor: int) -> Tensor:
    """Return x * factor modulo 2**32, in halves that cannot overflow int64."""
    high = (x * (factor >> 16) & 0xFFFF) << 16
    return x * (factor & 0xFFFF) + high & _MASK
