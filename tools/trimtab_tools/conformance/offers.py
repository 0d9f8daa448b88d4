"""What a switch asks of each rank, slot by slot: the slow, obvious version."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab_client.placement import IntArray, Placement
from trimtab_client.worker.offer import SwitchOffer
from trimtab_client.worker.proposal import check_offer
from trimtab_protocol.messages import Offer, Transfers
from trimtab_protocol.version import Version


@dataclass(frozen=True)
class Work:
    """What a switch asks of all ranks together. The rows are those of `SwitchOffer`.

    Attributes:
        base: the placement in force.
        target: the placement to switch to.
        receives: layer, slot, expert.
        sources: for each of these, all GPUs that hold the expert.
        copies: layer, slot to read, slot to write, expert.
    """

    base: Placement
    target: Placement
    receives: list[tuple[int, int, int]]
    sources: list[list[int]]
    copies: list[tuple[int, int, int, int]]

    @classmethod
    def between(cls, base: Placement, target: Placement) -> Work:
        """The work of a switch from `base` to `target`."""
        work = cls(base, target, [], [], [])
        per_gpu = work.slots_per_gpu
        for layer in np.flatnonzero((base.phy2log != target.phy2log).any(1)).tolist():
            old_R, new_R = base.phy2log[layer].tolist(), target.phy2log[layer].tolist()
            for first in range(0, len(old_R), per_gpu):
                work._fill(layer, range(first, first + per_gpu), old_R, new_R)
        return work

    def _fill(self, layer: int, own: range, old_R: list[int], new_R: list[int]) -> None:
        """Add what comes into the slots of one GPU, and from where."""
        # The lowest slot that has each expert, before the switch or once it is received.
        found = {old_R[slot]: slot for slot in reversed(own)}
        for slot in own:
            expert = new_R[slot]
            if expert == old_R[slot]:
                continue
            if expert in found:
                self.copies.append((layer, found[expert], slot, expert))
                continue
            found[expert] = slot
            holders = {s // len(own) for s, e in enumerate(old_R) if e == expert}
            self.receives.append((layer, slot, expert))
            self.sources.append(sorted(holders))

    @property
    def slots_per_gpu(self) -> int:
        """S: slots of one GPU."""
        slots: int = self.base.phy2log.shape[1]
        return slots // self.base.num_gpus

    def in_force(self, layer: int, slot: int) -> int:
        """The expert of a slot before the switch."""
        return int(self.base.phy2log[layer, slot])

    def arrivals(self, gpus: Collection[int]) -> int:
        """The highest number of experts that one of these GPUs receives."""
        counts = [0] * self.base.num_gpus
        for _, slot, _ in self.receives:
            counts[slot // self.slots_per_gpu] += 1
        return max(counts[gpu] for gpu in gpus)

    def is_idle(self, gpus: Collection[int]) -> bool:
        """Whether the rank that owns these GPUs has only to replace its maps."""
        written = [slot for _, slot, _ in self.receives] + [slot for _, _, slot, _ in self.copies]
        return not any(slot // self.slots_per_gpu in gpus for slot in written)

    def offers(
        self,
        ranks: Sequence[tuple[int, ...]],
        staging_slots: int,
        base: Version,
        version: Version,
        rng: np.random.Generator,
    ) -> list[SwitchOffer]:
        """The offer to each rank, checked as a session checks it; sources in random order."""
        ranked = [rng.permutation(gpus).tolist() for gpus in self.sources]
        sends = [self._send(row, gpus[0]) for row, gpus in zip(self.receives, ranked, strict=True)]
        changed = np.flatnonzero((self.base.phy2log != self.target.phy2log).any(1)).astype(np.int32)
        offers = []
        for gpus in ranks:
            mine = [
                i for i, row in enumerate(self.receives) if row[1] // self.slots_per_gpu in gpus
            ]
            transfers = Transfers(
                layers=changed,
                old_rows=self.base.phy2log[changed],
                new_rows=self.target.phy2log[changed],
                receives=_table([self.receives[i] for i in mine], 3),
                receive_sources=_padded([ranked[i] for i in mine]),
                sends=_table([row for row in sends if row[1] // self.slots_per_gpu in gpus], 4),
                copies=_table([r for r in self.copies if r[1] // self.slots_per_gpu in gpus], 4),
                bytes_received=len(mine),  # As if each expert had one byte.
            )
            offer = Offer(version, self.target.digest, base, self.base.digest, transfers)
            offers.append(check_offer(offer, self.base, gpus, staging_slots, 0))
        return offers

    def _send(self, receive: tuple[int, int, int], gpu: int) -> tuple[int, int, int, int]:
        layer, slot, expert = receive
        held = self.base.log2phy[layer, expert].tolist()
        return layer, next(s for s in held if s // self.slots_per_gpu == gpu), slot, expert


def _table(rows: Sequence[Sequence[int]], columns: int) -> IntArray:
    return np.array(rows, np.int32).reshape(-1, columns)


def _padded(rows: Sequence[Sequence[int]]) -> IntArray:
    table = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int32)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table
