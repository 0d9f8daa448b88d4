from __future__ import annotations

import copy
import pickle
import re

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

import trimtab_client
from tests.client.service import Failure
from trimtab.v1 import error_pb2
from trimtab.wire.v1 import standard_pb2
from trimtab_client import (
    AbortedError,
    AccessDeniedError,
    AlreadyExistsError,
    CallCancelledError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    TrimtabError,
    UnavailableError,
    UnimplementedError,
    exceptions,
)
from trimtab_client.exceptions import invalid
from trimtab_client.status import error_of_call, error_of_message

CLASSES = {
    "CANCELLED": CallCancelledError,
    "UNKNOWN": InternalError,
    "INVALID_ARGUMENT": InvalidArgumentError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "NOT_FOUND": NotFoundError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "PERMISSION_DENIED": AccessDeniedError,
    "RESOURCE_EXHAUSTED": ResourceExhaustedError,
    "FAILED_PRECONDITION": FailedPreconditionError,
    "ABORTED": AbortedError,
    "OUT_OF_RANGE": InvalidArgumentError,
    "UNIMPLEMENTED": UnimplementedError,
    "INTERNAL": InternalError,
    "UNAVAILABLE": UnavailableError,
    "DATA_LOSS": InternalError,
    "UNAUTHENTICATED": AccessDeniedError,
}


def failed(failure: Failure, trailer: bytes | None = None) -> grpc.RpcError:
    trailer = failure.status().SerializeToString() if trailer is None else trailer
    metadata = grpc.aio.Metadata(("server", "x"), ("grpc-status-details-bin", trailer))
    return grpc.aio.AioRpcError(failure.code, grpc.aio.Metadata(), metadata, failure.details)


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
def test_every_status_code_has_its_exception(code: grpc.StatusCode) -> None:
    error = error_of_call(failed(Failure(code, "what happened")))
    same_on_a_stream = error_of_message(
        error_pb2.Error(code=code.value[0], message="what happened")
    )

    assert type(error) is type(same_on_a_stream) is CLASSES[code.name]
    assert error.code is same_on_a_stream.code is code
    assert error.details == same_on_a_stream.details == "what happened"
    assert str(error).startswith("what happened")
    assert str(error_of_call(failed(Failure(code, "")))).startswith(code.name)


def test_an_unknown_status_code_is_an_internal_error() -> None:
    error = error_of_message(error_pb2.Error(code=99, message="new"))

    assert type(error) is InternalError
    assert error.code is grpc.StatusCode.UNKNOWN


def test_field_violations_are_read_from_the_status_details() -> None:
    violations = (("topology.num_gpus", "7 does not divide 40"), ("load", "is negative"))
    error = error_of_call(
        failed(Failure(grpc.StatusCode.INVALID_ARGUMENT, violations=violations, retry_after=1.0))
    )

    assert isinstance(error, InvalidArgumentError)
    assert error.field_violations == tuple(FieldViolation(*v) for v in violations)


@pytest.mark.parametrize(
    ("code", "advice"),
    [("RESOURCE_EXHAUSTED", "higher limits"), ("UNAVAILABLE", "Check the address")],
)
def test_only_an_error_with_a_retry_delay_advises_waiting(code: str, advice: str) -> None:
    full, other = (
        error_of_call(failed(Failure(grpc.StatusCode[code], "full", retry_after=after)))
        for after in (1.25, None)
    )

    assert isinstance(full, ResourceExhaustedError | UnavailableError)
    assert (full.retry_after, other.retry_after) == (1.25, None)
    assert str(full) == "full (Wait and try again.)"
    assert advice in str(other)
    assert "ait" not in str(other)


def test_a_stream_error_carries_the_same() -> None:
    invalid_argument = error_of_message(
        error_pb2.Error(
            code=3, message="bad", field_violations=[error_pb2.FieldViolation(field="load")]
        )
    )
    exhausted = error_of_message(
        error_pb2.Error(code=8, retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000))
    )

    assert invalid_argument.field_violations == (FieldViolation("load", ""),)
    assert exhausted.retry_after == 2.5


@pytest.mark.parametrize("code", ["FAILED_PRECONDITION", "ABORTED", "NOT_FOUND", "ALREADY_EXISTS"])
def test_a_refusal_by_state_has_the_servers_text_alone(code: str) -> None:
    said = "the switch to 1.1 is offered, by 'w0' not"
    assert str(error_of_call(failed(Failure(grpc.StatusCode[code], said)))) == said


def test_broken_details_leave_the_error_itself() -> None:
    error = error_of_call(failed(Failure(grpc.StatusCode.INVALID_ARGUMENT, "bad"), b"\xff\xff"))

    assert isinstance(error, InvalidArgumentError)
    assert error.field_violations == ()


def test_the_wire_copies_have_the_bytes_of_the_originals() -> None:
    bad_request = error_details_pb2.BadRequest()
    bad_request.field_violations.add(field="a", description="b")
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3, nanos=7))
    packed = [any_pb2.Any(), any_pb2.Any()]
    packed[0].Pack(bad_request)
    packed[1].Pack(retry)
    originals = [
        (bad_request, standard_pb2.BadRequest),
        (retry, standard_pb2.RetryInfo),
        (status_pb2.Status(code=3, message="m", details=packed), standard_pb2.Status),
        (health_pb2.HealthCheckRequest(service="s"), standard_pb2.HealthCheckRequest),
        (health_pb2.HealthCheckResponse(status="NOT_SERVING"), standard_pb2.HealthCheckResponse),
    ]

    for original, copied_class in originals:
        copied = copied_class.FromString(original.SerializeToString())
        assert copied.SerializeToString() == original.SerializeToString()
        assert _numbers(copied) == _numbers(original)


def _numbers(message: object) -> dict[str, tuple[int, int]]:
    return {f.name: (f.number, f.type) for f in message.DESCRIPTOR.fields}


def test_health_statuses_have_the_numbers_of_the_originals() -> None:
    ours = standard_pb2.HealthCheckResponse.ServingStatus.items()
    theirs = dict(health_pb2.HealthCheckResponse.ServingStatus.items())

    assert len(ours) == len(theirs)
    for name, number in ours[1:]:
        assert theirs[name.removeprefix("SERVING_STATUS_")] == number


def all_errors() -> list[TrimtabError]:
    by_code = [
        error_of_call(failed(Failure(code, "text", (("f", "d"),), 2.0)))
        for code in grpc.StatusCode
        if code is not grpc.StatusCode.OK
    ]
    local = [trimtab_client.ProtocolError("p"), trimtab_client.ClientClosedError("c")]
    return [*by_code, *local, invalid("load", "is bad")]


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.code.name)
def test_errors_survive_pickling_and_copying(error: TrimtabError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def test_every_error_is_in_the_docstrings_tree_and_exported() -> None:
    public = {
        name
        for name, thing in vars(exceptions).items()
        if isinstance(thing, type) and issubclass(thing, TrimtabError) and not name.startswith("_")
    }

    drawn = set(re.findall(r"\w+Error", exceptions.__doc__ or ""))
    assert drawn - {"ValueError", "TimeoutError"} == public
    assert public <= set(trimtab_client.__all__)


def test_errors_are_caught_by_the_builtins_they_resemble() -> None:
    assert issubclass(InvalidArgumentError, ValueError)
    assert issubclass(DeadlineExceededError, TimeoutError)
