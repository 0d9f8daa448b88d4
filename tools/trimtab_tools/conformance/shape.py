"""How large the groups of a check are, and who owns which GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trimtab_client.checks import integer
from trimtab_client.exceptions import invalid


@dataclass(frozen=True)
class Shape:
    """The shape of the groups that are made.

    Attributes:
        layers: L, MoE layers.
        experts: E, experts of a layer.
        slots: R, expert slots of a layer, over all GPUs.
        gpus: G.
        staging_slots: expert weights that the staging of each GPU has room for.
        hidden: H, the width of tokens.

    Raises:
        InvalidArgumentError: one is below 1, there are fewer slots than experts, or the GPUs do
            not divide the slots.
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

    EACH: a rank for each GPU. SEVERAL: two ranks, with the even and the odd GPUs. ONE: a rank
    that owns all, such as the driver of an engine that coordinates its GPUs by itself.
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
