"""`python -m tests.bench.plot [FIGURES] [SVG]`: plots balance against moves, as `served` measured.

Needs matplotlib: `pip install 'trimtab-client[plots]'`. The same figures give the same file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from tests.bench.played import DEFAULT, EVERY, KNOB, UNTOUCHED

FOLDER = Path(__file__).parent / "plots"

TITLES = {
    "gptoss20b_phases": "gpt-oss-20b, drifting domains",
    "gptoss20b_mixed": "gpt-oss-20b, mixed domains",
    "esft_dsv2lite": "DeepSeek-V2-Lite, abrupt shifts",
}
BEFORE = json.loads((FOLDER / "before.json").read_text())
"""Results of the default policy before it took noise into account, at commit a4914e5."""

GREY, BLUE, ORANGE = "#6b6b6b", "#0b5fa5", "#d9480f"

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.hashsalt": "trimtab",
    # Text as paths looks the same everywhere, whatever fonts are installed.
    "svg.fonttype": "path",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.facecolor": "white",
}


def draw(figures: dict[str, Any], path: Path) -> None:
    """Write an SVG with one panel for each replay."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(figures), figsize=(9.2, 3.9), squeeze=False, layout="constrained"
        )
        for axis, (name, replay) in zip(axes[0], figures.items(), strict=True):
            _panel(axis, replay["plans"], BEFORE.get(name))
            axis.set_title(
                f"{TITLES.get(name, name)}\n{replay['slots']} slots, {replay['gpus']} GPUs",
                fontsize=9,
            )
        axes[0][0].set_ylabel("live balancedness\n(mean / heaviest GPU load)")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def _panel(axis: Any, plans: dict[str, dict[str, float]], before: dict[str, float] | None) -> None:
    still = plans[UNTOUCHED]["balancedness"]
    axis.axhline(still, color=GREY, linestyle=":", linewidth=1.2, label="untouched")
    points = [_point(plans[label]) for label in EVERY]
    axis.plot(
        *zip(*points, strict=True),
        marker="o",
        color=GREY,
        markersize=4,
        linewidth=1.2,
        label="full re-plan every 1, 4, 16 windows",
    )
    for every, point in zip(EVERY.values(), points, strict=True):
        below = {"xytext": (0, -13), "textcoords": "offset points", "ha": "center"}
        axis.annotate(str(every), point, color=GREY, fontsize=8, **below)
    if before is not None:
        words = "Trimtab before"
        axis.plot(*_point(before), "s", color=BLUE, markersize=6, mfc="none", label=words)
    knob = sorted(_point(plans[label]) for label in (DEFAULT, *KNOB))
    words = "Trimtab, least gain from 0 to 0.032"
    axis.plot(*zip(*knob, strict=True), marker=".", color=ORANGE, linewidth=1.2, label=words)
    axis.plot(*_point(plans[DEFAULT]), "*", color=ORANGE, markersize=11, label="Trimtab, default")
    axis.set_xscale("log")
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlim(0.1, 80)
    axis.set_ylim(0.55, 0.97)
    axis.set_xlabel("net moves a layer and window")
    axis.grid(color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)


def _point(plan: dict[str, float]) -> tuple[float, float]:
    return plan["moves"], plan["balancedness"]


def main() -> None:
    """Read the figures, and write the SVG."""
    source, target = [*map(Path, sys.argv[1:]), *[None] * 2][:2]
    figures = json.loads((source or FOLDER / "served.json").read_text())
    draw(figures, target or FOLDER / "served.svg")


if __name__ == "__main__":
    main()
