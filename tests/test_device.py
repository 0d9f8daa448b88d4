from __future__ import annotations

import pytest
import torch

from trimtab_server.device import device_name, resolve_device, synchronize
from trimtab_server.domain.errors import InvalidArgumentError


@pytest.fixture
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has this many CUDA devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)


@pytest.mark.parametrize(
    ("gpus", "spec", "device"),
    [
        (0, "auto", "cpu"),
        (2, "auto", "cuda:0"),
        (0, "cpu", "cpu"),
        (2, "cpu", "cpu"),
        (2, "cuda", "cuda:0"),
        (2, "cuda:1", "cuda:1"),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_a_spec_stands_for_a_device_of_this_machine(spec: str, device: str) -> None:
    assert resolve_device(spec) == torch.device(device)


@pytest.mark.parametrize(
    ("gpus", "spec", "complaint"),
    [
        (0, "cuda", "'cuda': this machine has 0"),
        (2, "cuda:2", "'cuda:2': this machine has 2"),
        (2, "cuda:x", "not auto"),
        (2, "tpu", "'tpu' is not auto"),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_a_device_that_is_not_there_is_an_error_that_says_so(spec: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        resolve_device(spec)


def test_the_cpu_has_a_name_and_needs_no_waiting() -> None:
    assert device_name(torch.device("cpu"))
    synchronize(torch.device("cpu"))
