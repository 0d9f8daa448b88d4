"""Through writes, failures and crashes, a store has the same contents as a dictionary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.store.benches import BENCHES, folder_in_memory
from tests.store.scenes import contents, plain, plain_counters
from tests.store.strategies import by_worker, names, records
from trimtab_server.rollout.record import Record
from trimtab_server.store.codec import placements_of
from trimtab_server.store.counters import SavedCounters
from trimtab_server.store.errors import StoreError, StoreLockedError
from trimtab_server.store.failpoints import STAGES, configure

NAMES = ["a", "e\u0301", "é"]
deployments = st.sampled_from(NAMES)
stages = st.none() | st.sampled_from(STAGES)


class Model(RuleBasedStateMachine):
    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self._folder = folder_in_memory()
        self._bench = BENCHES[self.kind](Path(self._folder.name))
        self._store = self._bench.open()
        self._term = self._durable_term = 1
        self._records: dict[str, Record] = {}
        self._counters: dict[str, dict[str, SavedCounters]] = {}
        self._specs: dict[str, str] = {}

    def teardown(self) -> None:
        self._bench.tidy()
        self._folder.cleanup()

    @rule(deployment=deployments, record=records, stage=stages)
    def save(self, deployment: str, record: Record, stage: str | None) -> None:
        if self._writes("save", stage, lambda: self._store.save(deployment, record)):
            self._records[deployment] = record

    @rule(deployment=deployments, counters=by_worker, stage=stages)
    def save_counters(
        self, deployment: str, counters: dict[str, SavedCounters], stage: str | None
    ) -> None:
        save = lambda: self._store.save_counters(deployment, counters)  # noqa: E731
        if self._writes("save_counters", stage, save):
            self._counters[deployment] = counters

    @rule(deployment=deployments, spec=names, stage=stages)
    def save_spec(self, deployment: str, spec: str, stage: str | None) -> None:
        if self._writes("save_spec", stage, lambda: self._store.save_spec(deployment, spec)):
            self._specs[deployment] = spec

    @rule(deployment=deployments, stage=stages)
    def delete(self, deployment: str, stage: str | None) -> None:
        if self._writes("delete", stage, lambda: self._store.delete(deployment)):
            self._records.pop(deployment, None)
            self._counters.pop(deployment, None)
            self._specs.pop(deployment, None)

    @rule(above=st.integers(-2, 3), stage=stages)
    def outrank(self, above: int, stage: str | None) -> None:
        term = self._term + above
        if above <= 0:
            self._store.outrank(term)
        elif self._writes("outrank", stage, lambda: self._store.outrank(term)):
            # Durable, but the caller got an error and continues in the old term.
            self._durable_term = max(self._durable_term, term + 1)
            self._term = self._term if stage else term + 1

    @rule(crash=st.booleans(), stage=stages)
    def restart(self, crash: bool, stage: str | None) -> None:
        """The first attempt to open it may fail, which must not keep it locked."""
        with pytest.raises(StoreLockedError, match="another server"):
            self._bench.open()
        if crash:
            self._bench.crash()
        else:
            self._store.close()
        if stage is not None and self._writes("open", stage, self._bench.open):
            self._durable_term += 1
        self._store = self._bench.open()
        self._term = self._durable_term = self._durable_term + 1

    @invariant()
    def store_and_model_agree(self) -> None:
        assert contents(self._store, NAMES) == {
            deployment: (
                plain(self._records.get(deployment)),
                plain_counters(self._counters.get(deployment, {})),
                self._specs.get(deployment),
            )
            for deployment in NAMES
        }
        assert self._store.term == self._term
        used = (placements_of(record) for record in self._records.values())
        assert self._bench.placements() == {digest for placed in used for digest in placed}

    def _writes(self, operation: str, stage: str | None, write: Callable[[], object]) -> bool:
        """Whether it was written, as far as the caller can know."""
        if stage is None:
            write()
            return True
        configure(f"{operation}:{stage}=error")
        try:
            with pytest.raises(StoreError, match=f"failpoint {operation}:{stage}"):
                write()
        finally:
            configure("")
        return stage == "durable"


@pytest.mark.parametrize("kind", BENCHES)
def test_a_store_has_the_same_contents_as_a_dictionary(kind: str) -> None:
    machine = type("Model", (Model,), {"kind": kind})
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=15))
