"""Part of pytest: vLLM's own tests of its policy test another one. Runs in the engine's Python.

    TESTED_POLICY=drop-in python -m pytest -p tests.engines.tested_policy FILE

The plug-in's policy is the one that vLLM finds after it has loaded its plug-ins.
"""

from __future__ import annotations

import os
from typing import Any

import torch


def pytest_configure() -> None:
    """Replace the policy, before the tests are imported and take it."""
    tested = {"drop-in": _drop_in, "plug-in": _plug_in}[os.environ["TESTED_POLICY"]]()
    from vllm.distributed.eplb.policy import default

    class Tested(default.DefaultEplbPolicy):
        rebalance_experts = staticmethod(tested)

    default.DefaultEplbPolicy = Tested


def _drop_in() -> Any:
    from trimtab_server.solver import rebalance_phy2log

    return rebalance_phy2log


def _plug_in() -> Any:
    from tests.engines.vllm_group import stand_in_for_an_accelerator

    stand_in_for_an_accelerator()
    from vllm.distributed import parallel_state
    from vllm.distributed.eplb.policy import EPLB_POLICIES
    from vllm.distributed.eplb.policy.default import DefaultEplbPolicy
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    policy = EPLB_POLICIES["default"]
    assert policy is not DefaultEplbPolicy, "the plug-in is not active"
    torch.distributed.init_process_group(
        "gloo", init_method="tcp://127.0.0.1:0", world_size=1, rank=0
    )
    parallel_state._EPLB = parallel_state.init_model_parallel_group(
        [[0]], 0, "gloo", group_name="eplb"
    )
    return policy.rebalance_experts
