"""An engine that switches by itself, as a test plays it without sockets."""

from __future__ import annotations

import numpy as np

from tests.engine.scene import SKEWED, SPEC, UNTOUCHED
from trimtab_protocol.engine import EngineCall, EngineSetup, SwitchedLayers
from trimtab_protocol.messages import Report, Split
from trimtab_protocol.placement import Placement
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.engine_side import EngineAnswer, EngineRequest

BY_ENGINE = DeploymentSpec(
    SPEC.topology,
    SPEC.num_layers,
    SPEC.num_experts,
    "global",
    bytes_per_expert=100,
    switched_by="engine",
)


class Engine:
    """One process of an engine. It counts the same load in each interval of a hundred steps.

    Attributes:
        placement: the one in force.
        call: the last one.
    """

    def __init__(
        self,
        deployments: Deployments,
        *,
        name: str = "d",
        incarnation: int = 1,
        placement: Placement = UNTOUCHED,
        observes: bool = False,
        split: Split = Split.EVEN,
        spec: DeploymentSpec = BY_ENGINE,
    ) -> None:
        topology = spec.topology
        self.deployments = deployments
        self.placement = placement
        self.setup = EngineSetup(
            *(name, incarnation, topology, spec.num_experts, 100), observes=observes, split=split
        )
        self._spec = spec
        self._intervals = 0
        self._counts_LE = np.zeros((spec.num_layers, spec.num_experts), np.int64)

    @property
    def deployment(self) -> Deployment:
        """Its deployment, which has to exist."""
        return self.deployments.find(self.setup.deployment)

    async def asks(self, counts_LE=SKEWED, slot_counts_LR=None) -> EngineAnswer:
        """Call after another interval, but do nothing."""
        self._intervals += 1
        self._counts_LE = self._counts_LE + counts_LE
        last = 100 * self._intervals - 1
        report = Report(self._intervals, last - 99, last, self._counts_LE)
        self.call = EngineCall(self.setup, self.placement, report, 0.05, slot_counts_LR)
        return await self.repeats()

    async def repeats(self) -> EngineAnswer:
        """Send the last call again."""
        return await self.deployments.rebalance(EngineRequest(self.call, self._spec))

    async def obeys(self, counts_LE=SKEWED) -> EngineAnswer:
        """Call after another interval, and switch as the answer says."""
        answer = await self.asks(counts_LE)
        if answer.switch is not None:
            self.placement = answer.switch.placement
        return answer

    def layers(self, placement: Placement, *layers: int) -> SwitchedLayers:
        """What it says once it has switched these layers to a placement."""
        rows_KR = placement.phy2log[list(layers)]
        layers_K = np.array(layers, np.int32)
        return SwitchedLayers(self.setup.deployment, self.setup.incarnation, layers_K, rows_KR)
