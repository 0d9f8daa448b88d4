"""Traffic: ranks and steps together route exactly the counts of a trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab_client import InvalidArgumentError
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.trace import MAX_TOKENS
from trimtab_tools.simulate.traffic import RoutedTokens, TraceReplay, make_traffic, token_values

WINDOWS, LAYERS, EXPERTS = 3, 4, 6


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A trace of uneven counts, with an idle layer and an idle expert."""
    rng = np.random.default_rng(0)
    load_TLE = rng.integers(0, 40, (WINDOWS, LAYERS, EXPERTS))
    load_TLE[1, 2], load_TLE[:, :, 4], load_TLE[0, 0, 0] = 0, 0, 300
    return write(tmp_path / "trace.npz", load_TLE)


def write(path: Path, load: object) -> Path:
    np.savez(path, load=np.asarray(load))
    return path


def counted(steps: list[RoutedTokens]) -> np.ndarray:
    counts_LE = np.zeros((LAYERS, EXPERTS), np.int64)
    for routed in steps:
        np.add.at(counts_LE, (routed.layer_N, routed.expert_N), 1)
    return counts_LE


@pytest.mark.parametrize("ranks", [1, 3, 8])
@pytest.mark.parametrize("steps", [1, 5, 16])
def test_all_ranks_together_route_the_counts_of_the_trace_in_each_window(trace, ranks, steps):
    options = FleetOptions(trace=trace, ranks=ranks, steps_per_window=steps)
    traffic = [make_traffic(options, rank) for rank in range(ranks)]
    load_TLE = options.loads()
    for window in range(WINDOWS):
        by_step = [
            [each.routed(step) for each in traffic]
            for step in range(window * steps, (window + 1) * steps)
        ]

        all_LE = counted([routed for step in by_step for routed in step])
        np.testing.assert_array_equal(all_LE, load_TLE[window])
        # Tokens are spread evenly: of an expert and a layer over steps, of a step over ranks.
        in_step_SLE = np.stack([counted(step) for step in by_step])
        assert np.ptp(in_step_SLE, axis=0).max() <= 1
        assert np.ptp(in_step_SLE.sum(axis=2), axis=0).max() <= 1
        of_rank_SRL = np.array(
            [[counted([routed]).sum(axis=1) for routed in step] for step in by_step]
        )
        assert np.ptp(of_rank_SRL, axis=1).max() <= 1


def test_each_rank_routes_to_several_experts(trace):
    options = FleetOptions(trace=trace, ranks=3, steps_per_window=1)
    shares = [counted([make_traffic(options, rank).routed(0)]) for rank in range(3)]

    for share_LE in shares:
        assert ((share_LE > 0).sum(axis=1) > 1).all()


def test_traffic_does_not_depend_on_the_order_of_calls(trace):
    options = FleetOptions(trace=trace, ranks=3, steps_per_window=4)
    in_order, backwards = TraceReplay(options, 1), TraceReplay(options, 1)
    forth = [in_order.routed(step) for step in range(WINDOWS * 4)]
    back = [backwards.routed(step) for step in reversed(range(WINDOWS * 4))]

    for one, other in zip(forth, reversed(back), strict=True):
        np.testing.assert_array_equal(one.layer_N, other.layer_N)
        np.testing.assert_array_equal(one.expert_N, other.expert_N)


def test_the_last_window_is_repeated(trace):
    options = FleetOptions(trace=trace, ranks=1, steps_per_window=4)
    traffic = TraceReplay(options, 0)
    after = counted([traffic.routed(WINDOWS * 4 + step) for step in range(4)])

    np.testing.assert_array_equal(after, options.loads()[-1])


def test_a_selection_of_a_trace_has_some_windows_and_evenly_spaced_layers(trace):
    whole_TLE = FleetOptions(trace=trace).loads()
    options = FleetOptions(trace=trace, windows=(1, 3), layers=2)

    assert (options.num_windows, options.layers, options.experts) == (2, 2, EXPERTS)
    np.testing.assert_array_equal(options.loads(), whole_TLE[1:3, [0, 2]])


def test_tokens_differ_from_rank_to_rank_and_step_to_step():
    options = FleetOptions()
    seen = {token_values(options, rank, step, 4).tobytes() for rank in (0, 1) for step in (0, 1)}

    assert len(seen) == 4


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"experts": 8}, r"experts: 8 is not the number in the trace \(6\)"),
        ({"layers": 5}, r"layers: 5 is more than the trace has \(4\)"),
        ({"tokens": 3}, "tokens: 3 is given, but the trace has its own number"),
        ({"windows": (0, 4)}, "windows: 0:4 is not within 0:3"),
        ({"windows": (2, 2)}, "windows: 2:2 is not within"),
        ({"steps_per_window": 0}, "steps_per_window: 0"),
    ],
)
def test_sizes_that_do_not_fit_the_trace_are_refused(trace, values, complaint):
    with pytest.raises(InvalidArgumentError, match=complaint):
        FleetOptions(trace=trace, **values)


def test_windows_without_a_trace_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"windows: \(0, 4\) are given without a trace"):
        FleetOptions(windows=(0, 4))


@pytest.mark.parametrize(
    ("load", "complaint"),
    [
        (np.ones((2, 3, 4)), r"float64 \[2, 3, 4\], is not made of integers"),
        (np.ones(3, np.int64), r"the load is \[3\], not \[layers, experts\]"),
        (np.array([[[2**63]]], np.uint64), "beyond int64, 9223372036854775808"),
        (np.full((1, 2, 3), -1), "load\\[0, 0, 0\\]: -1 is negative"),
    ],
)
def test_an_array_that_is_not_a_trace_is_refused(tmp_path, load, complaint):
    path = write(tmp_path / "trace.npz", load)

    with pytest.raises(InvalidArgumentError, match=complaint) as refused:
        FleetOptions(trace=path)
    assert str(path) in str(refused.value)


def test_a_file_that_is_missing_or_has_no_load_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", counts=np.ones((1, 1, 1), np.int64), more=1)
    (tmp_path / "text.npz").write_text("load")
    complaints = {
        "other": "holds no 'load', but counts, more",
        "text": "is not an .npz file",
        "no": "No such file",
    }
    for name, complaint in complaints.items():
        with pytest.raises(InvalidArgumentError, match=f"trace: .*{complaint}"):
            FleetOptions(trace=tmp_path / f"{name}.npz")


def test_one_load_is_a_trace_of_one_window(tmp_path):
    load_LE = np.arange(8).reshape(2, 4)
    options = FleetOptions(trace=write(tmp_path / "load.npz", load_LE))
    assert options.num_windows == 1
    np.testing.assert_array_equal(options.loads(), load_LE[None])


def test_counts_that_are_too_many_are_scaled_down(tmp_path):
    """Each token is an element of arrays: ten billion would take hundreds of gigabytes."""
    load_TLE = np.array([[[10**10, 0, 3 * 10**10], [2 * 10**10] * 3], [[5, 6, 7], [2**55] * 3]])
    trace = write(tmp_path / "huge.npz", load_TLE)
    options = FleetOptions(trace=trace, ranks=2)
    scaled_TLE = options.loads()

    assert scaled_TLE.sum(axis=(1, 2)).max() <= MAX_TOKENS + scaled_TLE[0].size
    divided_TLE = load_TLE / options.trace_divisor
    assert np.abs(scaled_TLE - divided_TLE).max() <= 0.5
    first = FleetOptions(trace=trace, ranks=2, windows=(0, 1))
    assert first.loads()[0, 0].tolist() == pytest.approx(
        [MAX_TOKENS / 10, 0, MAX_TOKENS * 3 / 10], rel=1e-3
    )
    routed = [len(make_traffic(first, rank).routed(0).layer_N) for rank in range(2)]
    assert sum(routed) == pytest.approx(MAX_TOKENS / first.steps_per_window, rel=1e-3)


def test_counts_that_are_few_enough_are_as_they_are(trace):
    assert FleetOptions(trace=trace).trace_divisor == 1
    assert FleetOptions().trace_divisor == 1
