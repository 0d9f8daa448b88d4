"""The interface of stores, and the contract for all implementations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from trimtab_server.rollout.record import Record
from trimtab_server.store.counters import SavedCounters


class Store(Protocol):
    """Durable storage of a server's deployments: their specs, records and counters.

    **Ownership.** Constructing a store locks it for this server, and raises the durable `term`
    by one. `close`, or any end of the process, releases it. If another server uses the store,
    the constructor raises `StoreLockedError` at once. An implementation that can lose its
    store to another server while it is open, such as one with a lease, must raise
    `StoreLockedError` from every later write: once a higher term exists, a lower one never
    writes.

    **Values.** A store copies its arguments before a call returns, and returns only immutable
    values, so neither side can change the other's data. Names of deployments and workers are
    any text that UTF-8 can encode, compared by code points. A placement is stored once for each
    digest, as long as a record refers to it.

    **Concurrency.** Calls block, and may take as long as a disk or a network. Any thread may
    call, but only one at a time.

    **Durability.** Each write (`outrank`, `save`, `save_counters`, `save_spec`, `delete`, `probe`)
    is atomic, and durable when it returns: it survives the loss of the process and of power.

    **Errors.** A store raises only `StoreError`. A write that raises has happened either
    completely or not at all; `load` and `load_counters` tell which, and what they return is
    durable. The store stays usable after an error; only its owner closes it.

    Each write passes three failpoints, and so does opening a store: see `failpoints`.
    """

    @property
    def term(self) -> int:
        """The number of times that this store was opened or outranked another; from 1."""

    def outrank(self, term: int) -> None:
        """Raise the term of this store above `term`, if it is not above it already."""

    def deployments(self) -> list[str]:
        """Names of all deployments with a record or a spec, in the order of code points."""

    def load(self, deployment: str) -> Record | None:
        """The record that was saved last; None if there is none.

        Raises:
            StoreCorruptError: it cannot be read, or a placement does not have its digest.
        """

    def save(self, deployment: str, record: Record) -> None:
        """Replace the deployment's record."""

    def load_counters(self, deployment: str) -> Mapping[str, SavedCounters]:
        """The baselines that were saved last, by worker; empty if none were."""

    def save_counters(self, deployment: str, counters: Mapping[str, SavedCounters]) -> None:
        """Replace all baselines of a deployment, which does not need a record."""

    def load_spec(self, deployment: str) -> str | None:
        """The spec that was saved last; None if there is none."""

    def save_spec(self, deployment: str, spec: str) -> None:
        """Replace the spec of a deployment, in a format that only its owner knows."""

    def delete(self, deployment: str) -> None:
        """Delete the deployment's record, counters and spec, as far as they exist."""

    def add_operation(self, deployment: str, operation: str, keep: int) -> None:
        """Append what an operator did, in a format that only the owner knows.

        Of all deployments together, the newest `keep` are kept, also those of deleted ones.
        """

    def operations(self, deployment: str, limit: int) -> list[str]:
        """The newest `limit` operations on a deployment, the oldest first; 0 for all."""

    def probe(self) -> None:
        """Write, durably, and change nothing: raises StoreError if the next save would fail too."""

    def close(self) -> None:
        """Release the store. Only `close` may be called after that."""
