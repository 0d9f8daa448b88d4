"""An engine of one's own: four ranks whose experts Trimtab moves, all at the same step.

    trimtab-server serve                  # in another terminal
    python examples/engine.py

Each rank is a process with one "GPU". It has weights for its slots, the maps by which it routes,
and a `WorkerSession`. Its collectives are those of torch.distributed, over gloo. Its weights lie in
a file that the other ranks can map, as they would read a GPU's memory over RDMA. ENGINES.md says
what an engine has to do; what is marked with (1) to (6) here is all that Trimtab needs.

Legend for all shapes: L layers, E experts, S slots of a rank, T tokens of a rank, H hidden size.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from trimtab_client import (
    Client,
    DeploymentSpec,
    Flip,
    Mode,
    Placement,
    Policy,
    Scope,
    SwitchOffer,
    Topology,
    WorkerOptions,
    WorkerSession,
)

RANKS, LAYERS, EXPERTS, SLOTS, HIDDEN, TOKENS = 4, 3, 8, 3, 8, 64
Array = npt.NDArray[Any]
TOPOLOGY = Topology(num_replicas=RANKS * SLOTS, num_gpus=RANKS)
WINDOW = 40
"""Steps; the server decides after each window."""


def main() -> None:
    """Start the ranks, and wait for them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="localhost:50051", help="default: %(default)s")
    parser.add_argument("--deployment", default="my-engine", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=12 * WINDOW, help="default: %(default)s")
    given = parser.parse_args()
    with Client(given.server) as client:
        spec = DeploymentSpec(given.deployment, LAYERS, EXPERTS, TOPOLOGY)
        policy = Policy(mode=Mode.ACTIVE, every_steps=WINDOW, window_steps=WINDOW)
        client.create_deployment(spec, policy)
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        free.close()
        arguments = url, Path(folder), given.server, given.deployment, given.steps
        spawn(serve, arguments, RANKS)


def serve(rank: int, url: str, folder: Path, server: str, deployment: str, steps: int) -> None:
    """The main function of a rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=url, rank=rank, world_size=RANKS)
    engine = Rank(rank, folder)
    dist.barrier()  # all ranks' weights are there
    names = [uuid.uuid4().hex]
    dist.broadcast_object_list(names)  # (1) one name for the group, new whenever it forms
    options = WorkerOptions(
        deployment=deployment,
        worker=f"rank{rank}",  # the same whenever this process starts
        topology=TOPOLOGY,
        placement=engine.maps,
        scope=Scope.SOURCE,
        gpus=(rank,),
        group_id=names[0],
        bytes_per_expert=4 * HIDDEN * HIDDEN,
        staging_slots=engine.STAGING,
    )
    with WorkerSession(
        server, options, on_offer=engine.on_offer, on_abort=engine.on_abort, barrier=lowest
    ) as session:
        for step in range(steps):
            flip = session.at_step_boundary(step)  # (2) before each step, on all ranks
            if flip is not None:
                engine.flip(flip)  # (3) all ranks do so at this step
                session.applied()
            counts_LE = engine.forward(step, steps)
            session.record(counts_LE, step, step)  # (4) what this rank's router has sent out
            engine.report(step)
        dist.barrier()  # nobody reads this rank's weights any more
    dist.destroy_process_group()


def lowest(values: Sequence[int]) -> list[int]:
    """The barrier: the minimum over all ranks of each value."""
    numbers = torch.tensor(values, dtype=torch.int64)
    dist.all_reduce(numbers, op=dist.ReduceOp.MIN)
    least: list[int] = numbers.tolist()
    return least


class Rank:
    """Weights, maps, and a forward pass."""

    STAGING = 2
    """Expert weights for which there is room beside the slots."""

    def __init__(self, rank: int, folder: Path) -> None:
        self.rank = rank
        self.maps = Placement.untouched(LAYERS, EXPERTS, RANKS * SLOTS, RANKS)
        self.folder = folder
        shape = LAYERS, SLOTS, HIDDEN, HIDDEN
        self.weights_LSHH = np.memmap(folder / str(rank), np.float32, "w+", shape=shape)
        for layer in range(LAYERS):
            for slot in range(SLOTS):
                expert = int(self.maps.phy2log[layer, rank * SLOTS + slot])
                self.weights_LSHH[layer, slot] = checkpoint(layer, expert)
        self.checkpoint_LEHH = np.array(
            [[checkpoint(layer, expert) for expert in range(EXPERTS)] for layer in range(LAYERS)]
        )
        self.staged: dict[tuple[int, int], Array] = {}
        self.reader = ThreadPoolExecutor(1)
        self.rng = np.random.default_rng(rank)
        self.processed_GL = np.zeros((RANKS, LAYERS))
        self.switches = self.wrong = 0

    # A switch. Until the flip, only staging is written, so ranks read each other without a lock.

    def on_offer(self, offer: SwitchOffer) -> Future[None]:
        """(5) Fill staging from the other ranks, on a thread, while the engine serves."""
        return self.reader.submit(self.read, offer)

    def read(self, offer: SwitchOffer) -> None:
        """Read each expert that this rank receives from a GPU that has it."""
        rows = zip(offer.receives.tolist(), offer.receive_sources.tolist(), strict=True)
        for (layer, slot, expert), (gpu, *_) in rows:  # several ranks may have it
            shape = LAYERS, SLOTS, HIDDEN, HIDDEN
            theirs = np.memmap(self.folder / str(gpu), np.float32, "r", shape=shape)
            held = offer.base_placement.log2phy[layer, expert].tolist()
            source = next(each for each in held if each // SLOTS == gpu)
            self.staged[layer, slot] = theirs[layer, source % SLOTS].copy()

    def on_abort(self, offer: SwitchOffer) -> None:
        """(6) Free staging."""
        self.staged.clear()

    def flip(self, flip: Flip) -> None:
        """Write staging and the copies within this GPU to their slots, and take the new maps."""
        new, base = dict(self.staged), flip.offer.base_placement
        for layer, source, target, expert in flip.offer.copies.tolist():
            # Read everything before anything is written: copies form chains and rings.
            is_live = base.phy2log[layer, source] == expert
            live = self.weights_LSHH[layer, source % SLOTS]
            new[layer, target] = (live if is_live else self.staged[layer, source]).copy()
        for (layer, slot), weights in new.items():
            self.weights_LSHH[layer, slot % SLOTS] = weights
        self.staged.clear()
        self.maps = flip.placement
        self.switches += 1

    # A step.

    def forward(self, step: int, steps: int) -> Array:
        """Route tokens, compute them on all ranks, and check each; returns counts [L, E]."""
        # Half way, other experts become popular.
        popular_E = np.roll(1.0 / np.arange(1, EXPERTS + 1), 3 if step >= steps // 2 else 0)
        counts_LE = np.zeros((LAYERS, EXPERTS), np.int64)
        for layer in range(LAYERS):
            expert_T = self.rng.choice(EXPERTS, TOKENS, p=popular_E / popular_E.sum())
            token_TH = self.rng.integers(-4, 5, (TOKENS, HIDDEN)).astype(np.float32)
            turn_T = np.arange(TOKENS) % self.maps.logcnt[layer, expert_T]
            slot_T = self.maps.log2phy[layer, expert_T, turn_T].astype(np.int64)
            output_TH = self.computed(layer, slot_T, token_TH)
            right_TH = np.einsum("th,thk->tk", token_TH, self.checkpoint_LEHH[layer, expert_T])
            self.wrong += int((output_TH != right_TH).any(1).sum())
            counts_LE[layer] = np.bincount(expert_T, minlength=EXPERTS)
        return counts_LE

    def computed(self, layer: int, slot_T: Array, token_TH: Array) -> Array:
        """The outputs of this rank's tokens; each rank computes those of its slots."""
        slot_GT, token_GTH = gathered(slot_T), gathered(token_TH)
        output_GTH = np.zeros_like(token_GTH)
        for slot in range(SLOTS):
            here_GT = slot_GT == self.rank * SLOTS + slot
            output_GTH[here_GT] = token_GTH[here_GT] @ self.weights_LSHH[layer, slot]
        outputs = torch.from_numpy(output_GTH)
        dist.all_reduce(outputs)
        np.add.at(self.processed_GL[:, layer], slot_GT.ravel() // SLOTS, 1)
        own_TH: Array = output_GTH[self.rank]
        return own_TH

    def report(self, step: int) -> None:
        """After each window, rank 0 says how it went."""
        if step % WINDOW == WINDOW - 1:
            if self.rank == 0:
                mean_L, most_L = self.processed_GL.mean(0), self.processed_GL.max(0)
                imbalance = float((most_L / mean_L).mean())
                told = f"{self.switches} switches, {self.wrong} wrong tokens"
                print(f"step {step + 1:4}: busiest / mean GPU {imbalance:.3f}, {told}", flush=True)
            self.processed_GL[:] = 0


def checkpoint(layer: int, expert: int) -> Array:
    """The weights of an expert: small integers, so that sums are exact in float32."""
    rng = np.random.default_rng((layer, expert))
    weights_HH: Array = rng.integers(-4, 5, (HIDDEN, HIDDEN)).astype(np.float32)
    return weights_HH


def gathered(own: Array) -> Array:
    """An array of each rank, all in one."""
    parts = [torch.empty_like(torch.from_numpy(own)) for _ in range(RANKS)]
    dist.all_gather(parts, torch.from_numpy(own))
    all_GT: Array = torch.stack(parts).numpy()
    return all_GT


if __name__ == "__main__":
    main()
