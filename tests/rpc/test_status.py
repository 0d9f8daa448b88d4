from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from trimtab_protocol.errors import Violation
from trimtab_server.domain import errors
from trimtab_server.domain.errors import TrimtabError, UnavailableError
from trimtab_server.rpc.status import CODES, status_of, stream_error
from trimtab_server.store.errors import StoreLockedError


def tree(of: type[TrimtabError]) -> Iterator[type[TrimtabError]]:
    yield of
    for below in of.__subclasses__():
        yield from tree(below)


def test_every_error_of_the_tree_has_a_status() -> None:
    # The store's errors are the server's own trouble: INTERNAL, as their base is.
    own = {kind for kind in tree(TrimtabError) if kind.__module__ == TrimtabError.__module__}
    assert set(CODES) == own


EXAMPLES = [
    (
        errors.InvalidArgumentError(Violation("load", "is bad"), Violation("seed", "is odd")),
        grpc.StatusCode.INVALID_ARGUMENT,
        [("load", "is bad"), ("seed", "is odd")],
        None,
    ),
    (errors.ResourceExhaustedError("full", 0.25), grpc.StatusCode.RESOURCE_EXHAUSTED, [], 250),
    (errors.ResourceExhaustedError("too large"), grpc.StatusCode.RESOURCE_EXHAUSTED, [], None),
    (UnavailableError("draining", 1.0), grpc.StatusCode.UNAVAILABLE, [], 1000),
    (errors.FailedPreconditionError("not now"), grpc.StatusCode.FAILED_PRECONDITION, [], None),
    (errors.SessionClosedError("lost"), grpc.StatusCode.ABORTED, [], None),
    (StoreLockedError("taken"), grpc.StatusCode.INTERNAL, [], None),
    (errors.DeadlineExceededError("late"), grpc.StatusCode.DEADLINE_EXCEEDED, [], None),
]


@pytest.mark.parametrize(("error", "code", "fields", "delay_ms"), EXAMPLES)
def test_an_error_of_a_stream_has_the_information_of_a_status(
    error: TrimtabError, code: grpc.StatusCode, fields: list[tuple[str, str]], delay_ms: int | None
) -> None:
    status, message = status_of(error), stream_error(error)
    assert status.code is code
    assert status.message == message.message == str(error)
    assert message.code == code.value[0]
    assert [(v.field, v.description) for v in message.field_violations] == fields
    delay = message.retry_delay.ToMilliseconds() if message.HasField("retry_delay") else None
    assert delay == delay_ms


def test_a_delay_is_never_rounded_down_to_zero() -> None:
    assert stream_error(UnavailableError("soon", 1e-6)).retry_delay.ToMilliseconds() == 1
