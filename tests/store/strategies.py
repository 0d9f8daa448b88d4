"""Random records and counters, including unusual ones."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.layouts import layouts
from tests.store.scenes import FIRST, NEW, OLD, OTHER, PINNED
from trimtab_protocol.history import Member
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.rollout.record import Epoch, Record, Served, Stage, Switch
from trimtab_server.store.counters import SavedCounters

numbers = st.integers(0, 2**64 - 1)
names = st.text(max_size=8) | st.sampled_from(
    ["", "a\0b", "\N{GRINNING FACE}", "e\u0301", "é", "'"]
)
versions = st.builds(Version, numbers, numbers)


placements = layouts().map(lambda layout: Placement.of(*layout))
members = st.builds(Member, numbers, st.lists(st.integers(0, 99), max_size=3).map(tuple))
epochs = st.builds(Epoch, numbers, names, st.dictionaries(names, members, max_size=3), numbers)
# A few occur often, so that records share them.
used = st.sampled_from([FIRST, OLD, NEW, OTHER, PINNED]) | placements
switches = st.builds(Switch, versions, used, st.sampled_from(Stage))

records = st.builds(
    Record,
    epoch=st.none() | epochs,
    in_force=st.none() | versions,
    placement=st.none() | used,
    last_generation=numbers,
    switch=st.none() | switches,
    paused=st.none() | names,
    ended_groups=st.lists(names, max_size=3).map(tuple),
    pinned=st.none() | used,
    past=st.lists(st.builds(Served, versions, used), max_size=3).map(tuple),
)

saved_counters = st.builds(
    SavedCounters,
    incarnation=numbers,
    seq=numbers,
    last_step=numbers,
    counts_LE=hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=4)),
    estimate=st.binary(max_size=9) | st.just(b"\n{}\n"),
)
by_worker = st.dictionaries(names, saved_counters, max_size=3)
