"""Stored specs and policies are read, even those of earlier versions."""

from __future__ import annotations

import json

import pytest

from trimtab_server.domain.topology import Topology
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.stored_deployment import StoredDeployment
from trimtab_server.policy.policy import Mode, Policy
from trimtab_server.store.errors import StoreCorruptError

SPEC = DeploymentSpec(Topology(12, 4), 3, 8, "local", "pull", 100)


def stored(**policy: object) -> str:
    values = json.loads(StoredDeployment(SPEC, Policy(mode=Mode.SHADOW, every_steps=7)).encode())
    values["policy"] |= policy
    return json.dumps(values)


def test_a_deployment_is_read_as_it_was_written():
    spec = StoredDeployment(SPEC, Policy(mode=Mode.SHADOW, window_steps=64.0, least_gain=0.01))
    assert StoredDeployment.decode(spec.encode()) == spec


def test_former_settings_are_dropped_and_the_former_half_life_becomes_the_default():
    former = {"start_above": 1.02, "stop_below": 1.01, "min_gain": 0.01, "half_life_steps": 16.0}
    policy = StoredDeployment.decode(stored(**former)).policy
    assert policy == Policy(mode=Mode.SHADOW, every_steps=7)


CHOSEN = {
    "another half-life": {"start_above": 1.05, "half_life_steps": 8.0},
    "a window": {"start_above": 1.05, "half_life_steps": 0.0, "window_steps": 50.0},
    "a half-life of this version": {"half_life_steps": 16.0},
}


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN)
def test_settings_that_an_operator_chose_are_kept(chosen):
    policy = StoredDeployment.decode(stored(**chosen)).policy
    kept = {name: value for name, value in chosen.items() if name != "start_above"}
    assert {name: getattr(policy, name) for name in kept} == kept


def test_an_unreadable_spec_is_refused():
    with pytest.raises(StoreCorruptError, match="cannot be read"):
        StoredDeployment.decode(stored(of_the_future=1))
