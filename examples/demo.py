"""Serve real expert loads to a real server, and show what it did.

Starts `trimtab-server` on the CPU, replays traces of real routing through the
client window by window, and judges every placement on the window after those it
was planned on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimtab_client import Client, MoveBudget, Placement, SolverOptions, Topology, TrimtabError

TRACES = Path(__file__).parent / "traces"
DEFAULT_SHAPES = {"gptoss20b_phases": (40, 8), "esft_dsv2lite": (80, 8), "gptoss20b_mixed": (40, 8)}
ROWS = 16
LEGEND = """
untouched    heaviest GPU / mean GPU, mean over layers, as an engine first loads its experts
served       the same with the placement served, each judged on the window after its plan
moves        expert weights copied, a layer and window
p50, p99 ms  the client's round trip, the solver included"""


@dataclass
class Tally:
    """What happened in a run of windows."""

    untouched: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    moves: list[int] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in another run."""
        for name, values in vars(other).items():
            getattr(self, name).extend(values)

    def cells(self, layers: int) -> list[str]:
        """Imbalances, moves a layer and window, and latencies, as text."""
        latencies = ["-", "-"]
        if self.latency_ms:
            latencies = [f"{np.percentile(self.latency_ms, q):.1f}" for q in (50, 99)]
        return [
            f"{np.mean(self.untouched):.3f}",
            f"{np.mean(self.served):.3f}",
            f"{sum(self.moves) / layers / len(self.served):.2f}",
            *latencies,
        ]


def main() -> int:
    """Run the demo; returns its exit code."""
    # Ends like Ctrl-C, so that the server is not left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = parse_arguments()
    traces = list(DEFAULT_SHAPES)[:2] if arguments.trace == "both" else [arguments.trace]
    running = nullcontext((arguments.server, arguments.metrics)) if arguments.server else server()
    try:
        with running as (address, metrics), Client(address) as client:
            print(f"waiting    for {address}", flush=True)
            client.wait_ready(30)
            print(f"ready      with metrics at http://{metrics}/metrics")
            print(LEGEND)
            for name in traces:
                replay(client, name, arguments)
            show_metrics(metrics)
            if arguments.keep:
                input("\nThe server stays up for you to look around. Press Enter to stop it. ")
    except (TrimtabError, OSError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--trace", choices=["both", *DEFAULT_SHAPES], default="both", help="what to replay"
    )
    parser.add_argument("--gpus", type=positive, help="GPUs (default: as suits the trace)")
    parser.add_argument("--replicas", type=positive, help="slots of a layer over all GPUs")
    parser.add_argument(
        "--mode",
        choices=["improve", "replan"],
        default="improve",
        help="improve by a few moves (default), or plan anew and align",
    )
    parser.add_argument("--moves", type=positive, default=4, help="most moves a layer and plan")
    parser.add_argument("--every", type=positive, default=1, help="windows between two plans")
    parser.add_argument("--effort", choices=["fast", "balanced"], default="fast")
    parser.add_argument("--server", metavar="ADDRESS", help="use this server instead of a new one")
    parser.add_argument(
        "--metrics", metavar="ADDRESS", default="127.0.0.1:9464", help="its /metrics"
    )
    parser.add_argument("--keep", action="store_true", help="keep the server up at the end")
    return parser.parse_args()


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


@contextmanager
def server() -> Iterator[tuple[str, str]]:
    """A server of our own; yields its addresses for gRPC and for /metrics."""
    command = [sys.executable, "-m", "trimtab_server", "serve", "--device", "cpu"]
    command += ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    command += ["--log-format", "json", "--store", "memory"]
    print("starting   trimtab-server", flush=True)
    # Its own settings only: the ready line below is logged at level info.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRIMTAB_")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if '"ready"' in line:
                ready = json.loads(line)
                yield ready["address"], ready["metrics"]
                return
        raise SystemExit("the server did not start:\n" + "".join(lines))
    finally:
        process.terminate()
        process.communicate()


def replay(client: Client, name: str, arguments: argparse.Namespace) -> None:
    """Serve one trace and print a row for each part of it."""
    load_TLE, traffic = read_trace(name)
    windows, layers, experts = load_TLE.shape
    replicas, gpus = DEFAULT_SHAPES[name]
    topology = Topology(arguments.replicas or replicas, arguments.gpus or gpus)
    print(
        f"\n{name}: {windows} windows of real routing, {layers} layers x {experts} experts"
        f" -> {topology.num_replicas} slots on {topology.num_gpus} GPUs"
    )
    head = ["windows", "traffic", "untouched", "served", "moves", "p50 ms", "p99 ms"]
    widths = [9, 22, 9, 7, 6, 7, 7]
    print_row(head, widths)
    print_row(["-" * width for width in widths], widths)
    whole, part, first = Tally(), Tally(), 0
    for window, tally in enumerate(served(client, load_TLE, topology, arguments)):
        part.add(tally)
        whole.add(tally)
        show_progress(window + 2, windows)
        if window + 2 == windows or (window + 1) * ROWS // windows > window * ROWS // windows:
            label = f"{first + 1}-{window + 1}"
            print_row([label, traffic[window], *part.cells(layers)], widths)
            part, first = Tally(), window + 1
    print_row(["all", "", *whole.cells(layers)], widths)
    untouched, better = np.mean(whole.untouched), np.mean(whole.served)
    print(
        f"The busiest GPU carried {untouched:.2f} times the mean load in the untouched layout,"
        f"\nand {better:.2f} times in the one served: every step that waits for it has"
        f" {1 - better / untouched:.0%} less\nto wait for."
    )


def served(
    client: Client,
    load_TLE: npt.NDArray[np.float64],
    topology: Topology,
    arguments: argparse.Namespace,
) -> Iterator[Tally]:
    """Plan on an average of the past, judge on the next window."""
    layers, experts = load_TLE.shape[1:]
    shape = (layers, experts, topology.num_replicas, topology.num_gpus)
    untouched = in_force = Placement.untouched(*shape)
    budget = MoveBudget(max_moves_per_layer=arguments.moves)
    estimate_LE = load_TLE[0]
    for window in range(len(load_TLE) - 1):
        estimate_LE = (estimate_LE + load_TLE[window]) / 2
        tally = Tally()
        if window % arguments.every == 0:
            start = time.perf_counter()
            result = client.place(
                estimate_LE,
                topology,
                current=in_force,
                budget=budget if arguments.mode == "improve" else None,
                options=SolverOptions(effort=arguments.effort),
            )
            tally.latency_ms.append((time.perf_counter() - start) * 1e3)
            tally.moves.append(len(result.moves))
            in_force = result.placement
        coming_LE = load_TLE[window + 1]
        tally.untouched.append(float(untouched.balance(coming_LE).imbalance.mean()))
        tally.served.append(float(in_force.balance(coming_LE).imbalance.mean()))
        yield tally


def read_trace(name: str) -> tuple[npt.NDArray[np.float64], list[str]]:
    """`load` [T, L, E], and what each window's traffic mostly is."""
    with np.load(TRACES / f"{name}.npz") as file:
        load_TLE = file["load"].astype(np.float64)
        if "window_domain" in file:
            labels, which = file["domains"], file["window_domain"]
        else:
            labels, which = file["phases"], file["window_phase_tokens"].argmax(1)
    return load_TLE, [str(labels[index]) for index in which]


def print_row(cells: list[str], widths: list[int]) -> None:
    """One line of the table: two columns to the left, numbers to the right."""
    texts = [
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    clear = "\r\033[K" if sys.stdout.isatty() else ""
    print(clear + "  ".join(texts), flush=True)


def show_progress(done: int, total: int) -> None:
    """A bar below the table, on a terminal only."""
    if sys.stdout.isatty():
        bar = ("#" * (40 * done // total)).ljust(40, ".")
        print(f"\r[{bar}] {done}/{total}\033[K", end="\r" if done == total else "", flush=True)


def show_metrics(address: str) -> None:
    """A few of the server's own figures, and where the others are."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    wanted = ("trimtab_rpc_requests_total", "trimtab_moves_total", "trimtab_queue_wait_seconds_sum")
    print(f"\nfrom http://{address}/metrics, which Prometheus scrapes:")
    print("\n".join(f"  {line}" for line in lines if line.startswith(wanted)))
    print("To look for yourself: make demo ARGS=--keep, or make serve in another terminal.")


if __name__ == "__main__":
    sys.exit(main())
