"""Plays all cases with an engine."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from trimtab_protocol.messages import Transfer
from trimtab_tools.conformance.adapter import MakeGroup
from trimtab_tools.conformance.case import DEFAULT_PATIENCE, Result, Verdict
from trimtab_tools.conformance.cases import CASES
from trimtab_tools.conformance.shape import DEFAULT_SHAPE, Shape


@dataclass(frozen=True)
class Report:
    """What came of all cases.

    Attributes:
        results: one of each case.
    """

    results: tuple[Result, ...]

    @property
    def ok(self) -> bool:
        """Whether none has failed."""
        return not self.having(Verdict.FAILED)

    def having(self, verdict: Verdict) -> list[Result]:
        """The results with this verdict."""
        return [result for result in self.results if result.verdict is verdict]


def check_engine(
    make_group: MakeGroup,
    shape: Shape = DEFAULT_SHAPE,
    *,
    transfers: Collection[Transfer] = tuple(Transfer),
    seed: int = 0,
    patience: float = DEFAULT_PATIENCE,
) -> Report:
    """Play all cases with new groups of an engine.

    Args:
        make_group: makes them.
        shape: how large they are.
        transfers: which kinds of transfer the engine has.
        seed: of all that is chosen at random.
        patience: seconds that a call, or a transfer, may take; it is an error if one takes
            longer.
    """
    return Report(
        tuple(
            case.run(make_group, shape, seed=seed, patience=patience)
            for case in CASES
            if case.transfer in transfers
        )
    )
