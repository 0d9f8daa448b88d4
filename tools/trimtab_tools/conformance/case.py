"""One thing that an engine has to get right, and what came of trying it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from trimtab_client.worker.options import Transfer
from trimtab_tools.conformance.adapter import GroupSpec, MakeGroup
from trimtab_tools.conformance.errors import BrokenContractError, NotApplicableError
from trimtab_tools.conformance.group import Group
from trimtab_tools.conformance.shape import DEFAULT_SHAPE, Owners, Shape
from trimtab_tools.conformance.targets import some_placement

DEFAULT_PATIENCE = 10.0
"""Seconds."""


class Verdict(Enum):
    """What came of a case. SKIPPED: the engine, or the shape, has nothing to try it with."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class CaseContext:
    """What a case is played with: see `Case.run` and `Case`."""

    make_group: MakeGroup
    shape: Shape
    transfer: Transfer
    owners: Owners
    rng: np.random.Generator
    patience: float

    @property
    def gpus(self) -> tuple[tuple[int, ...], ...]:
        """The GPUs of each rank."""
        return self.owners.of(self.shape.gpus)

    def group(self) -> Group:
        """A new group, which begins with some placement."""
        shape = self.shape
        if self.owners is Owners.SEVERAL and shape.gpus < 3:
            raise NotApplicableError("two ranks with several GPUs take three GPUs at least")
        placement = some_placement(shape.layers, shape.experts, shape.slots, shape.gpus, self.rng)
        spec = GroupSpec(placement, self.gpus, self.transfer, shape.staging_slots, shape.hidden)
        return Group(self.make_group, spec, self.rng, self.patience)


@dataclass(frozen=True)
class Case:
    """One thing to get right. Its string, such as "pull-swap-each", is its own.

    Attributes:
        name: what is tried.
        reason: what has to hold.
        transfer: how weights come into staging.
        owners: how the GPUs are divided over ranks.
        play: tries it.
    """

    name: str
    reason: str
    transfer: Transfer
    owners: Owners
    play: Callable[[CaseContext], None] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.transfer.value}-{self.name}-{self.owners.value}"

    def run(
        self,
        make_group: MakeGroup,
        shape: Shape = DEFAULT_SHAPE,
        *,
        seed: int = 0,
        patience: float = DEFAULT_PATIENCE,
    ) -> Result:
        """Try it with new groups.

        Args:
            make_group: makes them.
            shape: how large they are.
            seed: of all that is chosen at random.
            patience: seconds that a call, or a transfer, may take.
        """
        rng = np.random.default_rng([seed, zlib.crc32(str(self).encode())])
        stage = CaseContext(make_group, shape, self.transfer, self.owners, rng, patience)
        try:
            self.play(stage)
        except NotApplicableError as error:
            return Result(self, Verdict.SKIPPED, str(error))
        except BrokenContractError as error:
            return Result(self, Verdict.FAILED, str(error))
        return Result(self, Verdict.OK, "")


@dataclass(frozen=True)
class Result:
    """What came of a case.

    Attributes:
        case: it.
        verdict: what came of it.
        message: why it failed, with rank, layer, slot and when; or why it was skipped.
    """

    case: Case
    verdict: Verdict
    message: str
