"""Markdown tables, timing, and the machine that a figure was measured on."""

from __future__ import annotations

import os
import platform
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from torch import Tensor


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = ""
) -> None:
    """Print a Markdown table under a heading, each row as soon as it is available."""
    print(f"\n### {title}\n")
    if caption:
        print(textwrap.fill(caption, 110) + "\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def timed(call: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of a call in milliseconds, after one to warm up."""
    call()
    return median(once(call) for _ in range(repeats))


def once(call: Callable[[], object]) -> float:
    """Wall time of one call in milliseconds."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def interleaved(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median wall time of each call in milliseconds; they take turns, after one to warm up.

    So other work of the machine slows all calls alike, and each call finds caches as cold as
    the others left them, as in a server that plans from time to time.
    """
    for call in calls:
        call()
    rounds = [[once(call) for call in calls] for _ in range(repeats)]
    return [median(times) for times in zip(*rounds, strict=True)]


def predicted_seconds(call: Callable[[Tensor], object], load_LE: Tensor) -> float:
    """The time that a call on [L, E] may take, estimated from an eighth of the layers."""
    part_LE = load_LE[: max(1, len(load_LE) // 8)]
    call(part_LE)  # compiles if necessary
    return once(lambda: call(part_LE)) / 1e3 * len(load_LE) / len(part_LE)


def in_ms(milliseconds: float) -> str:
    """A time with about three figures, which is as precise as a shared machine allows."""
    places = 0 if milliseconds >= 100 else 1 if milliseconds >= 10 else 2
    return f"{milliseconds:.{places}f}"


def machine() -> str:
    """One line: date, processor, cores, versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor()
    day = datetime.now(UTC).date().isoformat()
    return (
        f"{day}, {cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
