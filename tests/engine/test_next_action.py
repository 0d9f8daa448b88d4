"""What a deployment does next, as a table of its states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trimtab_server.domain.placement import placement_of
from trimtab_server.engine.next_action import (
    Action,
    DeploymentSnapshot,
    GoToPin,
    Idle,
    Plan,
    StepHistory,
    Wait,
    next_action,
)
from trimtab_server.policy.decide import Reason
from trimtab_server.policy.policy import Mode, Policy

SERVED = placement_of(np.arange(8)[None], 8, 4)
SAME = placement_of(np.arange(8)[None], 8, 4)
OTHER = placement_of(np.arange(8)[None, ::-1], 8, 4)
POLICY = Policy(mode=Mode.ACTIVE, every_steps=10, cooldown_steps=50)
READY = DeploymentSnapshot(
    at=3.0,
    step=100,
    known_steps=101,
    served=SERVED,
    planned_from=SERVED,
    history=StepHistory((100, 3.0), 0.03, decided_at=90, switched_at=50),
)
ABORTED = "the last offer was aborted"


def history(**changes: int) -> StepHistory:
    return replace(READY.history, **changes)


JUST_DECIDED = {"history": history(decided_at=91)}
PINNED = {"pinned": OTHER}
BLOCKED = {"offer_blocked": "paused"}
SHADOW, OFF = {"mode": Mode.SHADOW}, {"mode": Mode.OFF}

TABLE: dict[str, tuple[dict[str, object], dict[str, object], Action]] = {
    "ready": ({}, {}, Plan(SERVED)),
    "the first decision": ({"history": history(decided_at=-1, switched_at=-1)}, {}, Plan(SERVED)),
    "the time of a step is unknown": ({"history": StepHistory()}, {}, Wait(Reason.NO_LOAD)),
    "in shadow mode": ({"planned_from": OTHER}, SHADOW, Plan(OTHER)),
    "off": ({}, OFF, Idle()),
    "off, and not ready": (BLOCKED, OFF, Idle()),
    "no offer is accepted": (BLOCKED, {}, Wait(Reason.NOT_READY)),
    "after an abort": ({"backoff": ABORTED}, {}, Wait(Reason.NOT_READY)),
    "a worker is silent": ({"missing_report": "'b'"}, {}, Wait(Reason.NOT_READY)),
    "nothing is in force": ({"served": None, "planned_from": None}, {}, Wait(Reason.NOT_READY)),
    "little load": ({"known_steps": 9}, {}, Wait(Reason.NO_LOAD)),
    "just decided": (JUST_DECIDED, {}, Wait(Reason.TOO_SOON)),
    "just decided, and not ready": (JUST_DECIDED | BLOCKED, {}, Wait(Reason.TOO_SOON)),
    "just switched": ({"history": history(switched_at=51)}, {}, Wait(Reason.COOLDOWN)),
    "pinned elsewhere": (PINNED, {}, GoToPin(OTHER)),
    "pinned elsewhere, and off": (PINNED, OFF, GoToPin(OTHER)),
    "pinned elsewhere, in shadow mode": (PINNED | {"planned_from": OTHER}, SHADOW, GoToPin(OTHER)),
    "pinned elsewhere, just decided": (PINNED | JUST_DECIDED, {}, GoToPin(OTHER)),
    # The rollout itself refuses, once it has recovered from a failure of the store.
    "pinned, no offer is accepted": (PINNED | BLOCKED, {}, GoToPin(OTHER)),
    "pinned, after an abort": (PINNED | {"backoff": ABORTED}, {}, Idle()),
    "pinned, and there": ({"pinned": SAME}, {}, Idle()),
    "pinned, nothing is in force": (PINNED | {"served": None}, {}, Idle()),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_next_action_follows_from_state_and_policy(case: str) -> None:
    state, policy, action = TABLE[case]
    assert next_action(replace(READY, **state), replace(POLICY, **policy)) == action


def test_reasons_not_to_be_ready_are_named_in_order() -> None:
    blocked = replace(READY, offer_blocked="paused", backoff=ABORTED, missing_report="'b'")
    assert blocked.not_ready == "paused"
    assert replace(blocked, offer_blocked=None).not_ready == ABORTED
    assert replace(blocked, offer_blocked=None, backoff=None).not_ready == "'b'"
    assert READY.not_ready is None


def test_the_step_time_is_that_between_the_last_two_looks() -> None:
    seen = StepHistory().observed(-1, 1.0)
    assert (seen.newest, seen.step_seconds) == ((-1, 1.0), 0.0)
    assert seen.observed(-1, 9.0) == seen
    assert seen.observed(9, 3.0).step_seconds == pytest.approx(0.2)


def test_a_new_group_has_no_decisions_yet() -> None:
    assert READY.history.restarts_at(3)
    assert not READY.history.restarts_at(100)
    again = READY.history.observed(3, 9.0)
    assert again == StepHistory((3, 9.0), READY.history.step_seconds)
