"""What a fleet is: its sizes, its traffic, and how it switches."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_client.checks import integer, real
from trimtab_client.exceptions import invalid
from trimtab_client.options import Topology
from trimtab_client.placement import Placement
from trimtab_client.worker.options import Transfer

_MOST_HIDDEN = 1 << 14


@dataclass(frozen=True, kw_only=True)
class FleetOptions:
    """The sizes of a fleet, and how it works. A rank is a process with one GPU.

    Attributes:
        ranks: G, worker processes.
        layers: L.
        experts: E, logical experts of a layer.
        slots: R, expert slots of a layer, over all ranks; 0: as many for each rank as its
            share of the experts takes, and one to spare.
        hidden: H; an expert is one float32 matrix [H, H].
        tokens: what each rank routes in each layer of a step.
        transfer: how weights come into staging: PULL or COLLECTIVE, or these names in
            lower case.
        barrier_every: b, steps from one barrier to the next.
        step_seconds: shortest time of a step. 0: as fast as it goes.
        seed: of weights, tokens and random placements.
        deployment: its name.

    Raises:
        InvalidArgumentError: a value is out of its range, or does not fit the others.
    """

    ranks: int = 8
    layers: int = 4
    experts: int = 32
    slots: int = 0
    hidden: int = 64
    tokens: int = 16
    transfer: Transfer = Transfer.PULL
    barrier_every: int = 1
    step_seconds: float = 0.01
    seed: int = 0
    deployment: str = "simulated"

    def __post_init__(self) -> None:
        for name in ("ranks", "layers", "experts", "tokens", "barrier_every"):
            integer(getattr(self, name), name, low=1)
        # Below that, two experts might answer a token alike.
        integer(self.hidden, "hidden", 8, _MOST_HIDDEN)
        integer(self.seed, "seed", low=0)
        if not 0 <= real(self.step_seconds, "step_seconds") <= 60:
            raise invalid("step_seconds", f"{self.step_seconds} is not in [0, 60]")
        if self.transfer not in [*Transfer, *(each.value for each in Transfer)]:
            names = [each.value for each in Transfer]
            raise invalid("transfer", f"{self.transfer!r} is not one of {names}")
        object.__setattr__(self, "transfer", Transfer(self.transfer))
        if self.slots == 0:
            share = -(-self.experts // self.ranks) + 1
            object.__setattr__(self, "slots", self.ranks * share)
        integer(self.slots, "slots", low=1)
        if self.slots % self.ranks:
            raise invalid("slots", f"{self.slots} is no multiple of ranks ({self.ranks})")
        if self.slots < self.experts:
            raise invalid("slots", f"{self.slots} is less than experts ({self.experts})")

    @property
    def slots_per_rank(self) -> int:
        """S."""
        return self.slots // self.ranks

    @property
    def bytes_per_expert(self) -> int:
        """Of one matrix."""
        return self.hidden * self.hidden * 4

    @property
    def topology(self) -> Topology:
        """The deployment's."""
        return Topology(num_replicas=self.slots, num_gpus=self.ranks)

    @property
    def untouched(self) -> Placement:
        """What the ranks load at first."""
        return Placement.untouched(self.layers, self.experts, self.slots, self.ranks)
