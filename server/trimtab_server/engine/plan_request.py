"""What a caller asks of the planner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from trimtab_protocol.placement import Placement
from trimtab_server.domain.errors import require
from trimtab_server.domain.placement import placement_of
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.improve import DEFAULT_TOP_K
from trimtab_server.solver.settings import Effort

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Options:
    """How hard a request asks the solver to try.

    Attributes:
        effort: the preset; None for the server's default.
        overrides: fields of `Settings` that differ from the preset.
    """

    effort: Effort | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """How loads are to be placed. All loads of a stream share the same terms.

    Attributes:
        topology: slots, GPUs, nodes and groups.
        budget: of moves; None for a full plan.
        options: how hard to try.
        top_k: of `improve`; only used with a budget.
    """

    topology: Topology
    budget: Budget | None = None
    options: Options = Options()
    top_k: int = DEFAULT_TOP_K


@dataclass(frozen=True)
class UncheckedPlacement:
    """The current placement, as a caller sent it.

    Attributes:
        phy2log: integers [L, R].
        digest: what `Placement.digest` has to be; empty for any.
    """

    phy2log: Array
    digest: bytes = b""

    @property
    def num_experts(self) -> int:
        """E, if the placement is valid.

        At most R, so that a wrong entry cannot make the check that finds it expensive.
        """
        highest, slots = int(self.phy2log.max()), int(self.phy2log.shape[1])
        return max(1, min(highest + 1, slots))

    def checked(self, num_experts: int, num_gpus: int) -> Placement:
        """The placement; raises InvalidArgumentError if it is invalid."""
        placement = placement_of(self.phy2log, num_experts, num_gpus)
        require(
            self.digest in (b"", placement.digest),
            "current.digest",
            f"{self.digest.hex()} is not the digest of current.phy2log, {placement.digest.hex()}",
        )
        return placement
