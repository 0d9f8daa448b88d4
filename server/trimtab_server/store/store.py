"""What a store is: the interface, and the contract that every implementation keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from trimtab_server.rollout.record import Record
from trimtab_server.store.counters import SavedCounters


class Store(Protocol):
    """What a server has to remember of its deployments: what they are, records, and counters.

    **Ownership.** Constructing a store takes it for this server alone, and raises the durable
    `term` by one; `close`, or the end of the process, however it comes, lets it go. A store
    that another server has is refused at once with `StoreLockedError`. An implementation that
    can lose its store to another server while it is open, as one with a lease can, refuses
    every later write with `StoreLockedError`: a term that has been followed never writes.

    **Values.** What is passed in is copied before a call returns, and what is handed out cannot
    be changed, so neither side can change what the other holds. A deployment's name and a
    worker's are any text that UTF-8 can encode, told apart by code points. Placements are kept
    once for each digest, for as long as a record refers to them.

    **Concurrency.** Calls block, and may take as long as a disk or a network does. They come
    one at a time: from any thread, but never from two at once.

    **Durability.** Each write (`outrank`, `save`, `save_counters`, `save_spec`, `delete`) is all
    or nothing, and durable when it returns: it survives the loss of the process and of the
    machine's power.

    **Errors.** All that a store raises is a `StoreError`. A write that raises has either not
    happened or happened as a whole: `load` and `load_counters` say which, and what they
    say is durable. The store can be used on, and is closed by its owner alone.

    Each write passes three failpoints, and so does opening: see `failpoints`.
    """

    @property
    def term(self) -> int:
        """How many times this store has been opened or has outranked another; from 1."""

    def outrank(self, term: int) -> None:
        """Go on in a higher term than this one, where it is not this store's: it is too high."""

    def deployments(self) -> list[str]:
        """Names of all with a record or a spec, in order of their code points."""

    def load(self, deployment: str) -> Record | None:
        """The record that was saved last; None if there is none.

        Raises:
            StoreCorruptError: it cannot be read, or a placement is not what its digest says.
        """

    def save(self, deployment: str, record: Record) -> None:
        """Replace the deployment's record."""

    def load_counters(self, deployment: str) -> Mapping[str, SavedCounters]:
        """The baselines that were saved last, by worker; empty if none were."""

    def save_counters(self, deployment: str, counters: Mapping[str, SavedCounters]) -> None:
        """Replace all baselines of a deployment, which needs no record for that."""

    def load_spec(self, deployment: str) -> str | None:
        """The spec that was saved last; None if there is none."""

    def save_spec(self, deployment: str, spec: str) -> None:
        """Replace what is said of a deployment, in whatever form its owner gives it."""

    def delete(self, deployment: str) -> None:
        """Forget the deployment's record, counters and spec, where there are any."""

    def close(self) -> None:
        """Let the store go. Nothing but `close` may be called after it."""
