"""How balanced a fleet was while it replayed a trace, beside what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from trimtab_client.exceptions import TrimtabError
from trimtab_client.placement import Placement
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.shadow import ShadowPlacements
from trimtab_tools.simulate.static_plan import static_plan
from trimtab_tools.simulate.windows import ServedWindow, Window, Windows, imbalance_of


@dataclass(frozen=True)
class ReplayReport:
    """How balanced the fleet was while it replayed a trace. Imbalance is that of a `Window`.

    Attributes:
        windows: number of windows that were replayed to their end.
        left_out: number of these that are not judged, since a rank died and its counts were lost.
            All means and maxima are over the other windows.
        no_redundancy: mean imbalance, if each expert had one slot.
        static_plan: mean imbalance under the static plan; None if there is none.
        served: mean imbalance as the windows were served.
        shadow: mean imbalance under the placements of shadow mode, each from the step after the
            last that its decision knew of; None if no history has these.
        worst_no_redundancy, worst_static_plan, worst_served, worst_shadow: the highest imbalance
            of a window in place of the mean.
        moves_per_layer: expert weights that were new to a GPU, per layer and window.
        shadow_moves: expert weights that shadow mode would have brought to a GPU; None if unknown.
        shadow_moves_per_layer: the same, per layer and window.
        no_static_plan: why there is no static plan; empty if there is one.
        by_window: all windows that are judged.
    """

    windows: int
    left_out: int
    no_redundancy: float
    static_plan: float | None
    served: float
    shadow: float | None
    worst_no_redundancy: float
    worst_static_plan: float | None
    worst_served: float
    worst_shadow: float | None
    moves_per_layer: float
    shadow_moves: int | None
    shadow_moves_per_layer: float | None
    no_static_plan: str
    by_window: tuple[Window, ...]


def replay_report(
    windows: Windows, options: FleetOptions, moves: int, shadow: ShadowPlacements | None
) -> ReplayReport | None:
    """The report of a replay; None if no window can be judged."""
    if not windows.complete:
        return None
    plan, no_plan = _plan(options)
    steps = options.steps_per_window
    judged = [_judged(each, plan, shadow, steps) for each in windows.complete]
    no_redundancy = [window.no_redundancy for window in judged]
    served = [window.served for window in judged]
    static = [window.static_plan for window in judged if window.static_plan is not None]
    in_shadow = [window.shadow for window in judged if window.shadow is not None]
    return ReplayReport(
        windows=windows.ended,
        left_out=windows.ended - len(judged),
        no_redundancy=fmean(no_redundancy),
        static_plan=_mean(static),
        served=fmean(served),
        shadow=_mean(in_shadow),
        worst_no_redundancy=max(no_redundancy),
        worst_static_plan=max(static, default=None),
        worst_served=max(served),
        worst_shadow=max(in_shadow, default=None),
        moves_per_layer=moves / options.layers / windows.ended,
        shadow_moves=None if shadow is None else shadow.moves,
        shadow_moves_per_layer=(
            None if shadow is None else shadow.moves / options.layers / windows.ended
        ),
        no_static_plan=no_plan,
        by_window=tuple(judged),
    )


def _plan(options: FleetOptions) -> tuple[Placement | None, str]:
    """The static plan, or why there is none."""
    try:
        return static_plan(options), ""
    except TrimtabError as error:
        return None, str(error)


def _judged(
    served: ServedWindow, plan: Placement | None, shadow: ShadowPlacements | None, steps: int
) -> Window:
    window = served.window
    if plan is not None:
        imbalance_L = imbalance_of(plan.balance(served.load_LE).gpu_load)
        window = replace(window, static_plan=imbalance_L.mean().item())
    if shadow is not None:
        window = replace(window, shadow=shadow.imbalance(served, steps))
    return window


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
