"""Placements that workers serve by and go to."""

from __future__ import annotations

import numpy as np

from trimtab_server.domain.placement import placement_of

LAYERS, EXPERTS, SLOTS, GPUS = 2, 4, 6, 2

BEFORE = placement_of(np.array([[0, 1, 2, 3, 0, 1]] * LAYERS), EXPERTS, GPUS)
AFTER = placement_of(np.array([[0, 1, 2, 3, 0, 2], [3, 1, 2, 0, 3, 1]]), EXPERTS, GPUS)
LAST = placement_of(np.array([[0, 1, 2, 3, 1, 0]] * LAYERS), EXPERTS, GPUS)

LARGE_BEFORE = placement_of(np.array([[*range(256), *range(32)]] * 20), 256, 2)
LARGE_AFTER = placement_of(np.array([[*range(256), *range(32, 64)]] * 20), 256, 2)
"""An offer of one on the other is more than a channel with `NO_ROOM` takes in unread."""
