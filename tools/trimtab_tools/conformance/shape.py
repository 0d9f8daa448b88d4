"""The sizes of the groups under test, and which rank owns which GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trimtab_client.checks import integer
from trimtab_client.exceptions import invalid


@dataclass(frozen=True)
class Shape:
    """The sizes of the groups under test.

    Attributes:
        layers: L, MoE layers.
        experts: E, experts of a layer.
        slots: R, expert slots of a layer, over all GPUs.
        gpus: G.
        staging_slots: number of expert weights for which the staging of each GPU has room.
        hidden: H, the width of tokens.

    Raises:
        InvalidArgumentError: a value is below 1, there are fewer slots than experts, or the GPUs
            do not divide the slots.
    """

    layers: int = 3
    experts: int = 8
    slots: int = 12
    gpus: int = 4
    staging_slots: int = 2
    hidden: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            integer(value, name, low=1)
        if self.slots % self.gpus:
            raise invalid("gpus", f"{self.gpus} does not divide the number of slots ({self.slots})")
        if self.slots < self.experts:
            raise invalid("slots", f"{self.slots} are too few for {self.experts} experts")


DEFAULT_SHAPE = Shape()


class Owners(Enum):
    """How the GPUs are divided over ranks.

    EACH: one rank for each GPU. SEVERAL: two ranks, with the even and the odd GPUs. ONE: one rank
    that owns all GPUs, such as the driver of an engine that coordinates its own workers.
    """

    EACH = "each"
    SEVERAL = "several"
    ONE = "one"

    def of(self, gpus: int) -> tuple[tuple[int, ...], ...]:
        """The GPUs of each rank."""
        match self:
            case Owners.EACH:
                return tuple((gpu,) for gpu in range(gpus))
            case Owners.SEVERAL:
                return tuple(range(0, gpus, 2)), tuple(range(1, gpus, 2))
            case Owners.ONE:
                return (tuple(range(gpus)),)
