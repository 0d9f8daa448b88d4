"""Failpoints: off unless asked for, and never misspelt."""

from __future__ import annotations

import pytest

from tests.store.benches import Bench
from tests.store.scenes import prepare, write
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.store.errors import StoreError
from trimtab_server.store.failpoints import POINTS, configure, hit


@pytest.mark.parametrize("point", sorted(POINTS))
def test_a_store_passes_every_point_that_there_is(bench: Bench, point: str) -> None:
    operation, _, _ = point.partition(":")
    configure(f"{point}=error")
    with pytest.raises(StoreError, match=point):  # noqa: PT012
        store = bench.open()
        prepare(store)
        write(store, operation)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("save:written", "''"),
        ("save:written=crash", "'crash'"),
        ("save:writen=exit", "'save:writen'"),
        ("load:before=exit", "'load:before'"),
        ("save:before=error,save:written=", "''"),
        ("exit", "'exit'"),
        ("save:before=exit@", "''"),
        ("save:before=exit@0", "'0'"),
        ("save:before=exit@-1", "'-1'"),
        ("save:before=exit@soon", "'soon'"),
    ],
)
def test_what_is_misspelt_is_named_and_nothing_is_set(spec: str, named: str) -> None:
    configure("save:durable=error")
    with pytest.raises(InvalidArgumentError, match=f"failpoints: {named}"):
        configure(spec)
    hit("save:before")
    with pytest.raises(StoreError):
        hit("save:durable")


def test_points_are_off_unless_the_last_setting_names_them() -> None:
    configure("save:before=error, save:written=error, save:durable=off")
    with pytest.raises(StoreError):
        hit("save:before")
    with pytest.raises(StoreError):
        hit("save:written")
    hit("save:durable")
    configure("save:written=error")
    hit("save:before")
    configure("")
    hit("save:written")


def test_a_point_may_act_at_one_time_that_it_is_passed_and_at_no_other() -> None:
    configure("save:before=error@2")
    hit("save:before")
    with pytest.raises(StoreError):
        hit("save:before")
    hit("save:before")
