"""Behaviour of the store in memory beyond the contract."""

from __future__ import annotations

import pytest

from tests.store.scenes import BEFORE, SWITCHING, contents, expected, prepare
from trimtab_server.store.errors import StoreError
from trimtab_server.store.failpoints import configure
from trimtab_server.store.memory import MemoryStore


def test_reopening_keeps_the_contents_and_ends_the_previous_store() -> None:
    crashed = MemoryStore()
    prepare(crashed)
    configure("save:written=error")
    with pytest.raises(StoreError, match="failpoint"):
        crashed.save("a", SWITCHING)
    configure("")
    store = crashed.reopen()
    assert store.term == 2
    assert contents(store) == expected(BEFORE)
    with pytest.raises(StoreError, match="closed"):
        crashed.save("a", SWITCHING)
    crashed.close()
    assert contents(store) == expected(BEFORE)
