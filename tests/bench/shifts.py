"""How soon a plan is as good as re-planning in every window after the traffic has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from tests.bench.loads import TRACES
from tests.bench.played import FULL, Played
from tests.bench.tables import print_table

WITHIN = 0.02
STAYS = 2

CAPTION = (
    f"Windows served after the shift before live balancedness is within {WITHIN:.0%} of the "
    f"re-plan every window's, and is so for {STAYS} windows running; 0: with the first window. "
    "In brackets, how much lower live balancedness was than the re-plan's, in the mean over the "
    "task's windows, in points. The re-plans every 4 and 16 windows come with the last window "
    "before each shift, and so as late as they can."
)


def shifts(trace: str) -> list[tuple[str, int]]:
    """The names of the tasks that a labelled trace changes to, and the windows of the changes."""
    with np.load(TRACES / f"{trace}.npz") as file:
        if "window_domain" not in file:
            return []
        of_window, names = file["window_domain"], file["domains"]
    changes = [at for at, (was, now) in enumerate(pairwise(of_window), 1) if was != now]
    return [(str(names[of_window[at]]), at) for at in changes]


def windows_until_back(
    live: Sequence[float], full: Sequence[float], within: float = WITHIN, stays: int = STAYS
) -> int | None:
    """After how many windows `live` is within a share of `full`, and stays there for some windows.

    None if it never does. At the end of the trace fewer windows are enough.
    """
    good = [one >= (1 - within) * other for one, other in zip(live, full, strict=True)]
    firsts = (n for n in range(len(good)) if all(good[n : n + stays]))
    return next(firsts, None)


def print_shifts(trace: str, played: Mapping[str, Played]) -> None:
    """Print a row for each plan that moves anything, if the trace has shifts."""
    found, full = shifts(trace), played[FULL].balancedness
    # The first measured window is window 1.
    bounds = [*(at - 1 for _, at in found), len(full)]
    spans = [slice(*each) for each in pairwise(bounds)]
    spans = [span for span in spans if len(full[span]) >= STAYS]
    if not spans:
        return
    columns = ["plan", *(f"to {name}, window {at}" for name, at in found[: len(spans)])]
    moving = {label: each for label, each in played.items() if each.switches}
    rows = [
        [label, *(_cell(each.balancedness[span], full[span]) for span in spans)]
        for label, each in moving.items()
    ]
    print_table(f"{trace}: windows until back", columns, rows, CAPTION)


def _cell(live: Sequence[float], full: Sequence[float]) -> str:
    after, points = windows_until_back(live, full), 100 * (np.mean(full) - np.mean(live))
    shown = f"not in {len(full)}" if after is None else str(after)
    return f"{shown} ({points:.1f})"
