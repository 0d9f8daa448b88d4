"""Hashes a seed on the host; kernels hash the result further."""

from __future__ import annotations

_MASK = 0xFFFFFFFF


def seed_hash(seed: int) -> int:
    """The hash that the reference's `key_factors` computes of a seed, below 2**32."""
    seed %= 1 << 64
    return _mix(_mix(seed & _MASK) + (seed >> 32) & _MASK)


def _mix(x: int) -> int:
    x = (x ^ (x >> 16)) * 0x7FEB352D & _MASK
    x = (x ^ (x >> 15)) * 0x846CA68B & _MASK
    return x ^ (x >> 16)
