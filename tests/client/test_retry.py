from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_client import (
    AbortedError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    RetryPolicy,
    TrimtabError,
    UnavailableError,
)
from trimtab_client.exceptions import DeadlineExceededError
from trimtab_client.retry import retry_delay

jitters = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    lambda attempts, initial, more, multiplier: RetryPolicy(
        attempts, initial, initial + more, multiplier
    ),
    st.integers(1, 2000),
    st.floats(0, 10),
    st.floats(0, 10),
    st.floats(1, 10),
)
waits = st.none() | st.floats(0, 100)


@given(policies, st.integers(1, 2000), waits, jitters)
def test_a_wait_lies_between_what_the_server_asks_and_that_plus_the_backoff(
    policy: RetryPolicy, attempt: int, asked: float | None, jitter: float
) -> None:
    delay = retry_delay(policy, attempt, UnavailableError("x", retry_after=asked), math.inf, jitter)

    if attempt >= policy.max_attempts:
        assert delay is None
    else:
        assert delay is not None
        assert (asked or 0) <= delay <= (asked or 0) + policy.max_backoff


@given(policies, st.integers(1, 2000), waits, st.floats(0, 100), jitters)
def test_no_attempt_starts_after_the_timeout(
    policy: RetryPolicy, attempt: int, asked: float | None, remaining: float, jitter: float
) -> None:
    error = ResourceExhaustedError("x", retry_after=asked)
    delay = retry_delay(policy, attempt, error, remaining, jitter)

    assert delay is None or delay < remaining


def test_the_longest_wait_grows_up_to_its_bound() -> None:
    policy = RetryPolicy(max_attempts=6, initial_backoff=0.1, max_backoff=0.5, multiplier=2.0)
    error = UnavailableError("x")

    delays = [retry_delay(policy, attempt, error, math.inf, 0.5) for attempt in range(1, 7)]

    assert delays == [0.05, 0.1, 0.2, 0.25, 0.25, None]


def test_the_wait_is_jittered_over_its_whole_length() -> None:
    policy = RetryPolicy(initial_backoff=1.0, max_backoff=1.0)

    assert retry_delay(policy, 1, UnavailableError("x"), math.inf, 0.0) == 0.0
    assert retry_delay(policy, 1, UnavailableError("x"), math.inf, 0.999) == 0.999


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (UnavailableError("x"), True),
        (ResourceExhaustedError("x", retry_after=0.0), True),
        (ResourceExhaustedError("x"), False),
        (InvalidArgumentError("x"), False),
        (DeadlineExceededError("x"), False),
        (InternalError("x"), False),
        (FailedPreconditionError("x"), False),
        (AbortedError("x"), False),
    ],
)
def test_only_temporary_errors_are_retried(error: TrimtabError, retried: bool) -> None:
    assert (retry_delay(RetryPolicy(), 1, error, math.inf, 0.5) is not None) is retried


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": 1.5}, "max_attempts"),
        ({"initial_backoff": "1"}, "initial_backoff"),
        ({"max_backoff": None}, "max_backoff"),
        ({"initial_backoff": -1.0}, "initial_backoff"),
        ({"initial_backoff": 3.0, "max_backoff": 2.0}, "initial_backoff"),
        ({"max_backoff": math.inf}, "initial_backoff"),
        ({"multiplier": 0.5}, "multiplier"),
        ({"multiplier": math.nan}, "multiplier"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        RetryPolicy(**options)
