"""What a worker may be."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.client.worker.engine import FIRST, options
from trimtab_client import InvalidArgumentError, Placement, Scope, Transfer


def test_omitted_options_have_defaults() -> None:
    worker = options(group_id="", incarnation=0, transfer="pull")

    assert worker.gpus == (0, 1)
    assert worker.owns_all
    assert len(worker.group_id) == 32
    assert worker.group_id != options(group_id="").group_id
    assert worker.incarnation > 1_700_000_000 * 10**9
    assert (worker.scope, worker.transfer, worker.num_experts) == (Scope.SOURCE, Transfer.PULL, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"deployment": ""}, "deployment: '' is not a name"),
        ({"worker": 7}, "worker: 7 is not a name"),
        ({"gpus": (2,)}, r"gpus\[0\]: 2 is not in \[0, 1\]"),
        ({"gpus": (1, 0)}, r"gpus: \[1, 0\] do not ascend"),
        ({"gpus": (1, 1)}, r"gpus: \[1, 1\] do not ascend"),
        ({"gpus": (1,), "group_id": ""}, "group_id: '' is not a name"),
        ({"scope": "all"}, r"scope: 'all' is not one of \['source', 'local', 'global'\]"),
        ({"transfer": "push"}, r"transfer: 'push' is not one of \['pull', 'collective'\]"),
        ({"staging_slots": 0}, "staging_slots: 0"),
        ({"max_layers_per_switch": -1}, "max_layers_per_switch: -1"),
        ({"model": None}, "model: None is not a string of Unicode"),
        ({"first_layer": -1}, "first_layer: -1"),
        ({"first_layer": 2**32}, "first_layer: 4294967296 is not in"),
        ({"bytes_per_expert": 0}, "bytes_per_expert: 0"),
        ({"bytes_per_expert": 1.5}, "bytes_per_expert: 1.5 is not an integer"),
        ({"incarnation": -1}, "incarnation: -1"),
        ({"placement": FIRST.phy2log}, "placement: ndarray is not a Placement"),
        ({"placement": Placement.untouched(3, 4, 8, 2)}, r"placement: .* \(8, 2\) are not"),
        ({"placement": Placement.untouched(3, 4, 6, 3)}, r"placement: .* \(6, 3\) are not"),
    ],
    ids=str,
)
def test_invalid_options_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        options(**values)


@pytest.mark.process
def test_the_worker_is_loaded_when_first_used() -> None:
    code = (
        "import sys, trimtab_client\n"
        "names = set(trimtab_client._LATER)\n"
        "assert names <= set(dir(trimtab_client))\n"
        "assert not [m for m in sys.modules if m.startswith('trimtab_client.worker.')]\n"
        "for name in names: assert getattr(trimtab_client, name).__doc__, name\n"
        "assert 'trimtab_client.worker.aio' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
