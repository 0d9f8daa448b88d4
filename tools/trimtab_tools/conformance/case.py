"""A case: one rule that an engine has to keep, and the result of checking it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from trimtab_protocol.messages import Transfer
from trimtab_tools.conformance.adapter import GroupSpec, MakeGroup
from trimtab_tools.conformance.errors import BrokenContractError, NotApplicableError
from trimtab_tools.conformance.group import Group
from trimtab_tools.conformance.shape import DEFAULT_SHAPE, Owners, Shape
from trimtab_tools.conformance.targets import random_placement

DEFAULT_PATIENCE = 10.0
"""Seconds."""


class Verdict(Enum):
    """The verdict of a case. SKIPPED: the engine or the shape does not allow the case."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class CaseContext:
    """What a case needs to run: see `Case.run` and `Case`."""

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
        """A new group, which begins with a random placement."""
        shape = self.shape
        if self.owners is Owners.SEVERAL and shape.gpus < 3:
            raise NotApplicableError("two ranks with several GPUs need at least three GPUs")
        placement = random_placement(shape.layers, shape.experts, shape.slots, shape.gpus, self.rng)
        spec = GroupSpec(placement, self.gpus, self.transfer, shape.staging_slots, shape.hidden)
        return Group(self.make_group, spec, self.rng, self.patience)


@dataclass(frozen=True)
class Case:
    """A rule that an engine has to keep. Its string, such as "pull-swap-each", is unique.

    Attributes:
        name: of the case.
        reason: the rule.
        transfer: how weights come into staging.
        owners: how the GPUs are divided over ranks.
        check: checks the rule; raises `BrokenContractError` if the engine breaks it.
    """

    name: str
    reason: str
    transfer: Transfer
    owners: Owners
    check: Callable[[CaseContext], None] = field(repr=False, compare=False)

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
        """Check the rule with new groups. The arguments are those of `check_engine`."""
        rng = np.random.default_rng([seed, zlib.crc32(str(self).encode())])
        context = CaseContext(make_group, shape, self.transfer, self.owners, rng, patience)
        try:
            self.check(context)
        except NotApplicableError as error:
            return Result(self, Verdict.SKIPPED, str(error))
        except BrokenContractError as error:
            return Result(self, Verdict.FAILED, str(error))
        return Result(self, Verdict.OK, "")


@dataclass(frozen=True)
class Result:
    """The result of a case.

    `message` is why it failed, with the rank, layer, slot and moment; or why it was skipped.
    """

    case: Case
    verdict: Verdict
    message: str
