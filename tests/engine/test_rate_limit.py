"""Rate limits allow exactly what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_server.engine.rate_limit import KeyedRateLimiter, RateLimit, RateLimiter

LIMIT = RateLimit(per_second=4.0, burst=3)
PERIOD = 0.25


def test_a_burst_is_allowed_at_once_and_the_rest_at_the_rate():
    limiter, now, times = RateLimiter(LIMIT), 100.0, []
    for _ in range(6):
        now += limiter.delay(now)
        limiter.record(now)
        times.append(now - 100)
    assert times == [0, 0, 0, PERIOD, 2 * PERIOD, 3 * PERIOD]


@given(st.lists(st.floats(0, 2), max_size=60))
def test_no_interval_has_more_events_than_a_burst_and_its_share(gaps):
    limiter, now, times = RateLimiter(LIMIT), 0.0, []
    for gap in gaps:
        now += gap
        now += limiter.delay(now)
        limiter.record(now)
        times.append(now)
    for first, start in enumerate(times):
        for last, end in enumerate(times[first:], first):
            assert last - first + 1 <= LIMIT.burst + (end - start) * LIMIT.per_second + 1e-6


@given(st.lists(st.floats(PERIOD, 2), max_size=60))
def test_events_below_the_rate_never_wait(gaps):
    limiter, now = RateLimiter(LIMIT), 0.0
    for gap in gaps:
        now += gap
        assert limiter.delay(now) == 0
        limiter.record(now)


def test_each_key_has_a_limit_of_its_own_and_refused_events_do_not_count():
    limiters = KeyedRateLimiter(LIMIT)
    assert [limiters.acquire("a", 0.0) for _ in range(3)] == [0, 0, 0]
    # Asking does not put it off any further.
    assert [limiters.acquire("a", 0.0) for _ in range(5)] == [PERIOD] * 5
    assert limiters.acquire("b", 0.0) == 0
    assert limiters.acquire("a", PERIOD) == 0
    assert limiters.acquire("a", PERIOD) == pytest.approx(PERIOD)


def test_idle_keys_are_dropped():
    limiters = KeyedRateLimiter(LIMIT)
    for key in range(1000):
        limiters.acquire(key, key * 0.01)
    # Those of the last quarter of a second.
    assert len(limiters) <= 27
    for _ in range(3):
        limiters.acquire("often", 20.0)
    assert len(limiters) == 1
    assert limiters.acquire("often", 20.0) > 0
    limiters.acquire("other", 20.0 + 3 * PERIOD)
    assert len(limiters) == 1
