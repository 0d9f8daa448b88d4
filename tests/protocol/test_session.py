"""Every message of a session is the same value after encoding and decoding."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.layouts import layouts
from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab_protocol import messages
from trimtab_protocol.errors import MalformedError
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import MAX_NUMBER, Version
from trimtab_protocol.wire import requests, responses, values

NUMBERS = st.integers(0, MAX_NUMBER)
STEPS = st.integers(-1, 2**63 - 2)
TEXT = st.text(max_size=20)
NAMES = st.text(min_size=1, max_size=200)
DIGESTS = st.binary(min_size=32, max_size=32)
UINT32 = st.integers(0, 2**32 - 1)
VERSIONS = st.builds(Version, NUMBERS, NUMBERS)


@st.composite
def hellos(draw: st.DrawFn) -> tuple[messages.Hello, messages.WorkerSetup]:
    placement = Placement.of(*draw(layouts()))
    owned = draw(st.sets(st.integers(0, placement.num_gpus - 1), min_size=1))
    held = st.builds(messages.Held, VERSIONS, st.sampled_from(messages.HeldState))
    hello = messages.Hello(
        draw(NAMES),
        draw(NAMES),
        draw(st.integers(0, 2**64 - 1)),
        draw(st.integers(1, 2**32 - 1)),
        tuple(sorted(owned)),
        placement,
        draw(st.none() | VERSIONS),
        draw(st.none() | held),
        draw(st.none() | STEPS),
        *(draw(NUMBERS) for _ in range(3)),
    )
    slots = placement.phy2log.shape[1]
    setup = messages.WorkerSetup(
        draw(NAMES),
        messages.Topology(slots, placement.num_gpus, draw(st.integers(1, 9)), 1),
        placement.num_experts,
        draw(st.sampled_from(messages.Scope)),
        draw(st.sampled_from(messages.Transfer)),
        draw(st.integers(1, 2**32 - 1)),
        draw(UINT32),
        draw(st.integers(0, 2**64 - 1)),
        draw(TEXT),
        draw(UINT32),
    )
    return hello, setup


def rows(columns: int) -> st.SearchStrategy[Any]:
    """int32 [M, columns]. Without rows the message has no columns either."""
    return arrays.arrays("<i4", st.tuples(st.integers(0, 3), st.just(columns)))


TRANSFERS = st.builds(
    messages.Transfers,
    arrays.arrays("<i4", st.tuples(st.integers(1, 3))),
    arrays.arrays("<i4", (2, 3)),
    arrays.arrays("<i4", (2, 3)),
    rows(3),
    st.just(np.empty((0, 0), "<i4")) | arrays.arrays("<i4", (2, 2)),
    rows(4),
    rows(4),
    st.integers(0, 2**64 - 1),
)
ANSWERS = st.one_of(
    st.builds(messages.Accepted, VERSIONS, DIGESTS),
    st.builds(messages.Prepared, VERSIONS, DIGESTS),
    st.builds(messages.Refused, VERSIONS, DIGESTS, TEXT),
    st.builds(messages.Discarded, VERSIONS),
    st.builds(messages.Applied, VERSIONS, DIGESTS, STEPS),
)
SECONDS = st.floats(0, 1e6, exclude_min=True)
SERVER_MESSAGES = st.one_of(
    st.builds(messages.Welcome, VERSIONS, DIGESTS),
    st.builds(messages.Offer, VERSIONS, DIGESTS, VERSIONS, DIGESTS, TRANSFERS),
    st.builds(messages.Commit, VERSIONS, DIGESTS),
    st.builds(messages.Abort, VERSIONS),
    st.builds(messages.Directive, SECONDS, st.just(0.0) | SECONDS),
    st.builds(messages.ReportAck, st.integers(0, 2**64 - 1)),
    st.builds(messages.Drain, SECONDS),
)


def sent(message: Any) -> Any:
    """The message as it arrives at the other end."""
    return type(message).FromString(message.SerializeToString())


def plain(value: Any) -> Any:
    """A value that can be compared: arrays as their type, shape and numbers."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tolist()
    if isinstance(value, messages.Report):
        return [plain(each) for each in value]
    if is_dataclass(value) and not isinstance(value, Placement):
        return type(value), [plain(getattr(value, each.name)) for each in fields(value)]
    return type(value), value


@given(hellos())
def test_a_hello_survives_the_wire(said: tuple[messages.Hello, messages.WorkerSetup]) -> None:
    request = sent(requests.encode_hello(*said))

    assert requests.decode_hello(request.hello) == said


@given(
    st.integers(1, 2**63),
    st.integers(0, 2**62),
    arrays.arrays("<i8", (2, 3), elements=st.integers(0, 2**40)),
    st.booleans(),
)
def test_a_report_survives_the_wire(seq: int, step: int, counts_LE: Any, discard: bool) -> None:
    report = messages.Report(seq, step, step + 3, counts_LE, discard)
    request = sent(requests.encode_report(report))

    assert plain(requests.decode_report(request.report)) == plain(report)


@given(ANSWERS)
def test_an_answer_survives_the_wire(answer: messages.Answer) -> None:
    assert requests.decode_answer(sent(requests.encode_answer(answer))) == answer


def test_a_long_reason_is_cut() -> None:
    refused = messages.Refused(Version(1, 1), bytes(32), "x" * 1001)

    cut = requests.decode_answer(sent(requests.encode_answer(refused)))
    assert cut == messages.Refused(refused.version, refused.digest, "x" * 1000)


@given(SERVER_MESSAGES, st.integers(0, MAX_NUMBER))
def test_a_server_message_survives_the_wire(message: messages.ServerMessage, term: int) -> None:
    response = sent(responses.encode_response(term, message))

    assert response.term == term
    assert plain(responses.decode_response(response)) == plain(message)


def test_every_message_of_a_session_is_tested() -> None:
    """A message that is added to the contract has to be added here."""
    asked = {field.name for field in pb.SessionRequest.DESCRIPTOR.fields}
    said = {field.name for field in pb.SessionResponse.DESCRIPTOR.fields} - {"term"}

    assert asked == {
        *("hello", "report", "goodbye"),
        *("accepted", "prepared", "refused", "discarded", "applied"),
    }
    assert said == {"welcome", "offer", "commit", "abort", "directive", "report_ack", "drain"}
    assert sent(requests.encode_goodbye("over")).goodbye.reason == "over"


def test_everything_wrong_with_a_hello_is_named_at_once() -> None:
    with pytest.raises(MalformedError) as refused:
        requests.decode_hello(pb.Hello(worker="w", term=MAX_NUMBER + 1))

    assert {violation.field for violation in refused.value.violations} == {
        *("hello.deployment", "hello.group_id", "hello.stream", "hello.staging_slots"),
        *("hello.term", "hello.scope", "hello.transfer", "hello.gpus", "hello.placement"),
    }


def test_a_number_of_gpus_that_does_not_fit_the_placement_is_named_by_its_path() -> None:
    hello = pb.Hello(topology={"num_replicas": 4, "num_gpus": 3}, num_experts=2)
    hello.placement.CopyFrom(values.encode_placement(Placement.of([[0, 1, 0, 1]], 2, 2)))

    with pytest.raises(MalformedError, match=r"hello\.topology\.num_gpus: 3 does not divide"):
        requests.decode_hello(hello)
