"""The delay of the next offer after aborted ones."""

from __future__ import annotations

from dataclasses import replace

from tests.engine.scene import OTHER
from trimtab_protocol.version import Version
from trimtab_server.engine.backoff import Backoff
from trimtab_server.rollout.record import Record, Stage, Switch


def test_the_delay_doubles_with_each_abort_and_ends_with_a_success():
    backoff, waits, now = Backoff(), [], 100.0
    before = Record(in_force=Version(1, 0))

    def ended(generation: int, in_force: int) -> None:
        switch = Switch(Version(1, generation), OTHER, Stage.OFFERED)
        backoff.record_offer(replace(before, switch=switch))
        backoff.update(replace(before, switch=switch), now)  # still open
        backoff.update(replace(before, in_force=Version(1, in_force)), now)

    for generation in range(1, 10):
        ended(generation, 0)
        waited = 0.0
        while backoff.blocked_reason(now) is not None:
            now, waited = now + 0.5, waited + 0.5
        waits.append(waited)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    ended(10, 10)
    assert backoff.blocked_reason(now) is None
    ended(11, 10)
    assert backoff.blocked_reason(now + 1) is None, "from the beginning"
