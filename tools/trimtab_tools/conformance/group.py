"""A group under test: it goes through switches and aborts as in a run, with a check after each."""

from __future__ import annotations

from concurrent.futures import Future
from types import TracebackType
from typing import Self

import numpy as np

from trimtab_client.placement import Placement
from trimtab_client.worker.offer import Flip, SwitchOffer
from trimtab_protocol.messages import Transfer
from trimtab_protocol.version import Version
from trimtab_tools.conformance.adapter import GroupSpec, MakeGroup
from trimtab_tools.conformance.errors import BrokenContractError
from trimtab_tools.conformance.expert_outputs import ExpertOutputs
from trimtab_tools.conformance.offers import Work
from trimtab_tools.conformance.ranks import Ranks, failure_of
from trimtab_tools.conformance.targets import Feature, large_target, target_with

_TOKENS = 4

Offers = dict[int, SwitchOffer]
"""The offer to each rank, by its index."""


class Group:
    """A group of ranks, in a `with` block.

    At any time each rank has to compute and route by the placement that is in force there. All
    methods raise `BrokenContractError` if a rank does not, or if it fails or blocks.

    Args:
        make_group: makes the adapters.
        spec: which group to make.
        rng: for all random choices.
        patience: the longest time that a call or a transfer may take, in seconds.

    Attributes:
        ranks: its ranks.
        expert_outputs: what each expert computes.
        placement: the placement by which all serve.

    Raises:
        NotApplicableError: the engine has no such groups.
    """

    def __init__(
        self, make_group: MakeGroup, spec: GroupSpec, rng: np.random.Generator, patience: float
    ) -> None:
        self.spec, self._rng = spec, rng
        self.placement, self._version = spec.placement, Version(1, 0)
        self._generation = self._step = 0
        # The same tokens for all groups, so that their results can be compared.
        tokens_TH = np.random.default_rng(0).standard_normal((_TOKENS, spec.hidden))
        self._tokens_TH = tokens_TH.astype(np.float32)
        self.ranks = Ranks(make_group, spec, patience)
        self._in_force = dict.fromkeys(self.ranks.alive(), spec.placement)

    def __enter__(self) -> Self:
        try:
            seen = self.ranks.observe(self._tokens_TH, "at the start")
            self.expert_outputs = ExpertOutputs(self.placement, seen.values())
            self.check("at the start")
            self.expert_outputs.require_distinct()
        except BrokenContractError as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.ranks.close(self.ranks.alive())
        except BrokenContractError:
            # An earlier error says more.
            if exc is None:
                raise

    # Switches and aborts.

    def switch(self, target: Placement) -> None:
        """Do a whole switch."""
        self.flip(self.prepare(self.offers(target)))

    def offers(self, target: Placement) -> Offers:
        """Make a new offer to each rank."""
        self._generation += 1
        offers = Work.between(self.placement, target).offers(
            self.spec.gpus,
            self.spec.staging_slots,
            self._version,
            Version(1, self._generation),
            self._rng,
        )
        return {rank: offers[rank] for rank in self.ranks.alive()}

    def prepare(self, offers: Offers) -> Offers:
        """Have the ranks prepare these offers at once; all must succeed. Returns the offers."""
        for rank, failure in self.attempt(offers).items():
            if failure is not None:
                what = f"cannot prepare {offers[rank].version}: {failure}"
                raise BrokenContractError(f"{self.ranks.name(rank)}: {what}")
        return offers

    def attempt(self, offers: Offers) -> dict[int, str | None]:
        """Have the ranks prepare these offers at once; returns why each failed, or None."""
        collective = self.spec.transfer is Transfer.COLLECTIVE
        call = self.ranks.call_engine if collective else self.ranks.call_session
        calls = {rank: call(rank, "on_offer", offer) for rank, offer in offers.items()}
        what = _version(offers)
        if collective:
            self.ranks.wait(calls, f"on_offer of {what}")
        # A pull goes on meanwhile, and the engine has to serve.
        self.check(f"while {what} is being prepared")
        self.ranks.wait(calls, f"on_offer of {what}")
        transfers = {
            rank: call.result()
            for rank, call in calls.items()
            if call.exception() is None and isinstance(call.result(), Future)
        }
        self.ranks.wait(transfers, f"the transfer of {what}")
        self.check(f"after {what} was prepared")
        return {rank: failure_of(transfers.get(rank, call)) for rank, call in calls.items()}

    def abort(self, offers: Offers) -> None:
        """Have the ranks give up these offers."""
        aborts = {rank: self.ranks.call_session(rank, "on_abort", o) for rank, o in offers.items()}
        self.ranks.results(aborts, f"on_abort of {_version(offers)}")
        self.check(f"after {_version(offers)} was aborted")

    def flip(self, offers: Offers) -> None:
        """Have the ranks flip, one after another: a flip must not need another rank."""
        self._step += 1
        order = self._rng.permutation(list(offers)).tolist()
        for rank in order:
            flip = Flip(offers[rank], self._step)
            call = self.ranks.call_engine(rank, "flip", flip)
            self.ranks.results({rank: call}, f"the flip to {flip.version}")
            self._in_force[rank], self.placement = flip.placement, flip.placement
            if rank == order[0]:
                self.check(f"after {self.ranks.name(rank)} alone has flipped to {flip.version}")
        self.check(f"after the flip to {_version(offers)}")
        self._version = _version(offers)

    def check(self, when: str) -> None:
        """Check what all ranks compute and how they route."""
        for rank, seen in self.ranks.observe(self._tokens_TH, when).items():
            mistake = self.expert_outputs.mistake_of(seen, self._in_force[rank])
            if mistake is not None:
                raise BrokenContractError(f"{self.ranks.name(rank)}, {when}: {mistake}")

    # Targets.

    def large_target(self) -> Placement:
        """See `targets.large_target`."""
        return large_target(self.placement, self.spec.staging_slots, self._rng)

    def target_with(self, feature: Feature) -> Placement:
        """See `targets.target_with`."""
        return target_with(self.placement, self.spec.staging_slots, self._rng, feature)


def _version(offers: Offers) -> Version:
    return next(iter(offers.values())).version
