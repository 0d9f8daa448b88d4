"""The measured load of GPUs, compared with counting token by token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_server.loads.measured import measured_loads


@st.composite
def groups(draw: st.DrawFn):
    """Slots of GPUs, the GPUs of each worker, and the tokens that each worker's slots processed."""
    layers, gpus, slots = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    experts = draw(st.integers(1, gpus * slots))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    phy2log_LR = rng.integers(0, experts, (layers, gpus * slots))
    owners = draw(st.lists(st.integers(0, gpus - 1), min_size=gpus, max_size=gpus))
    of_worker = [tuple(g for g in range(gpus) if owners[g] == w) for w in range(gpus)]
    counts_LR = rng.integers(0, 9, phy2log_LR.shape).astype(float)
    return phy2log_LR, [owned for owned in of_worker if owned], counts_LR, experts, gpus


def by_expert(counts_LR, phy2log_LR, owned, experts, slots):
    rate_LE = np.zeros((len(phy2log_LR), experts))
    for gpu in owned:
        for slot in range(gpu * slots, (gpu + 1) * slots):
            for layer, row_R in enumerate(phy2log_LR):
                rate_LE[layer, row_R[slot]] += counts_LR[layer, slot]
    return rate_LE


@given(groups())
def test_the_tokens_of_each_worker_are_divided_over_its_gpus(case):
    phy2log_LR, workers, counts_LR, experts, gpus = case
    slots = phy2log_LR.shape[1] // gpus
    owned = [(w, by_expert(counts_LR, phy2log_LR, w, experts, slots)) for w in workers]
    loads_LG = measured_loads(owned, phy2log_LR, gpus)
    counts_LG = counts_LR.reshape(len(phy2log_LR), gpus, slots).sum(2)
    for gpus_of_worker, _ in owned:
        these = list(gpus_of_worker)
        # All tokens of the worker; exact to the token if it has one GPU.
        assert loads_LG[:, these].sum(1) == pytest.approx(counts_LG[:, these].sum(1))
        if len(these) == 1:
            assert loads_LG[:, these] == pytest.approx(counts_LG[:, these])


def test_two_gpus_of_a_worker_share_an_expert_that_both_hold():
    # Expert 0 lies twice on the first GPU and once on the second, expert 1 on the second alone.
    rate_LE = np.array([[30.0, 5.0]])
    loads_LG = measured_loads([((0, 1), rate_LE)], np.array([[0, 0, 0, 1]]), 2)
    assert loads_LG.tolist() == [[20.0, 15.0]]


def test_nothing_is_measured_before_all_workers_have_reported():
    rate_LE = np.array([[30.0, 5.0]])
    assert measured_loads([((0,), rate_LE)], np.array([[0, 1]]), 2) is None
    assert measured_loads([], np.array([[0, 1]]), 2) is None
