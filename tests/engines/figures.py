"""Policies beside each other in an engine's process; runs in the engine's Python.

    python -m tests.engines.figures ADDRESS [--quick]

Prints Markdown: how long a call takes, and how replays of real traffic go. `python -m tests.bench
engines` starts the server at ADDRESS, and this.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.bench.loads import drifted, trace
from tests.bench.replay import REPLAYS, Outcome, replay
from tests.bench.tables import in_ms, interleaved, print_table
from trimtab_client import Topology as ClientTopology
from trimtab_client.plugin import Leader, ModelLoad, PluginSettings, agreed
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import rebalance_phy2log

LAYERS, EXPERTS, LARGE = 58, 256, Topology(288, 32)
STEPS = 16
"""Of the engine, in a window."""

Policy = Callable[[Tensor, Topology, Tensor], Tensor]
"""(counts int64 [L, E], topology, phy2log in force [L, R]) -> the next phy2log."""


def main() -> None:
    """Print the tables."""
    address, *flags = sys.argv[1:]
    torch.set_num_threads(1)
    quick = bool(flags)
    _print_times(address, repeats=2 if quick else 51)
    for name in ("gptoss20b_phases", "gptoss20b_mixed"):
        _print_replay(address, name, windows=9 if quick else None)


def _print_times(address: str, repeats: int) -> None:
    before, after = (torch.from_numpy(load).long() for load in drifted(LAYERS, EXPERTS))
    in_force = rebalance_phy2log(before, 288, 1, 1, 32)
    asks = _plug_in(address, "times")
    # The first call makes the deployment.
    asks(before, LARGE, in_force)
    policies: dict[str, Policy] = {
        "vLLM's own": _vllm,
        "SGLang's own": _sglang,
        "drop-in: improves the placement in force": _drop_in,
        "drop-in: plans anew, aligned": lambda *given: _drop_in(*given, budget=None),
        "plug-in: asks the server": asks,
    }
    calls = [lambda policy=policy: policy(after, LARGE, in_force) for policy in policies.values()]
    times = interleaved(calls, repeats)
    rows = [
        [name, in_ms(time), f"{time / times[0]:.2f}", f"{time / times[1]:.2f}"]
        for name, time in zip(policies, times, strict=True)
    ]
    caption = (
        f"{LAYERS} layers of {EXPERTS} experts, 288 slots, 32 GPUs; 30 % of a realistic load is "
        f"new. Median of {repeats} calls in turns, in one process with one thread; the server, "
        "where it is asked, is a process on the same cores."
    )
    columns = ["policy", "ms", "of vLLM's", "of SGLang's"]
    print_table("A policy call in the engine's process", columns, rows, caption)


def _print_replay(address: str, name: str, windows: int | None) -> None:
    topology, load_TLE = REPLAYS[name], torch.from_numpy(trace(name))[:windows]
    policies = {
        "vLLM's own": _vllm,
        "SGLang's own": _sglang,
        "drop-in": _drop_in,
        "plug-in": _plug_in(address, name),
    }
    seen: dict[str, Outcome] = {}
    for named, policy in policies.items():
        # The engine hands the counts of the last window over, and they remember what they want.
        counts_LE = iter(load_TLE.long())
        seen[named] = replay(
            load_TLE,
            topology,
            lambda _, in_force, policy=policy, counts=counts_LE: policy(
                next(counts), topology, in_force
            ),
            every=1,
        )
    own = seen["vLLM's own"]
    rows = [
        [
            named,
            f"{outcome.balancedness:.4f}",
            f"{outcome.balancedness / own.balancedness:.1%}",
            f"{outcome.moves:.2f}",
            f"{own.moves / outcome.moves:.1f}" if outcome.moves else "-",
        ]
        for named, outcome in seen.items()
    ]
    caption = (
        "Each policy is called after each window with its counts; its placement is judged on the "
        "next one. Moves: experts that a GPU gets and did not hold, a layer and window."
    )
    columns = ["policy", "live balancedness", "of vLLM's", "moves", "times fewer than vLLM's"]
    print_table(f"{name}, {topology.num_replicas} / {topology.num_gpus}", columns, rows, caption)


def _vllm(counts_LE: Tensor, topology: Topology, in_force_LR: Tensor) -> Tensor:
    from vllm.distributed.eplb.policy.default import DefaultEplbPolicy

    sizes = topology.num_replicas, 1, 1, topology.num_gpus
    answer: Tensor = DefaultEplbPolicy.rebalance_experts(counts_LE, *sizes, in_force_LR)
    return answer


def _sglang(counts_LE: Tensor, topology: Topology, in_force_LR: Tensor) -> Tensor:
    from sglang.srt.eplb.eplb_algorithms import deepseek

    del in_force_LR  # SGLang does not tell its algorithms
    sizes = topology.num_replicas, 1, 1, topology.num_gpus
    phy2log: Tensor = deepseek.rebalance_experts(counts_LE, *sizes, enable_hierarchical=False)[0]
    return phy2log


def _drop_in(counts_LE: Tensor, topology: Topology, in_force_LR: Tensor, **given: Any) -> Tensor:
    sizes = topology.num_replicas, 1, 1, topology.num_gpus
    return rebalance_phy2log(counts_LE, *sizes, in_force_LR, **given)


def _plug_in(address: str, deployment: str) -> Policy:
    """What rank 0 does, without the broadcast."""
    log = logging.getLogger(deployment)
    leader = Leader(PluginSettings(address, deployment, timeout=60.0), log)

    def ask(counts_LE: Tensor, topology: Topology, in_force_LR: Tensor) -> Tensor:
        load = ModelLoad(
            key="",
            model="",
            topology=ClientTopology(topology.num_replicas, topology.num_gpus),
            bytes_per_expert=1 << 20,
            counts=counts_LE.numpy(),
            num_experts=counts_LE.shape[1],
            phy2log_LR=in_force_LR.numpy(),
            steps=STEPS,
        )
        target = leader.ask(load)
        return torch.from_numpy(agreed(target, in_force_LR.numpy(), lambda _: None))

    return ask


if __name__ == "__main__":
    main()
