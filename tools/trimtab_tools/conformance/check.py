"""Runs all cases with an engine."""

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
    """The results of all cases, one for each."""

    results: tuple[Result, ...]

    @property
    def ok(self) -> bool:
        """Whether no case has failed."""
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
    """Run all cases with new groups of an engine.

    Args:
        make_group: makes the groups.
        shape: sizes of the groups.
        transfers: the kinds of transfer that the engine has.
        seed: of all random choices.
        patience: the longest time that a call or a transfer may take, in seconds; a longer one
            fails the case.
    """
    return Report(
        tuple(
            case.run(make_group, shape, seed=seed, patience=patience)
            for case in CASES
            if case.transfer in transfers
        )
    )
