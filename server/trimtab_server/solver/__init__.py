"""The solver: functions on tensors with explicit seeds. Only its backends look at the host.

Legend for all shapes: L layers, E logical experts, R physical slots, G GPUs,
S = R / G slots of a GPU, N nodes; X rows of a batch, n items, P packs.
"""

from trimtab_server.domain.balance import Evaluation
from trimtab_server.domain.moves import Moves
from trimtab_server.solver.align import align
from trimtab_server.solver.backends.backend import Backend, Packing, Replicas
from trimtab_server.solver.backends.select import BackendName, backend_for
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.evaluate import evaluate
from trimtab_server.solver.improve import improve
from trimtab_server.solver.packing import balanced_packing, pack
from trimtab_server.solver.plan import Plan, place
from trimtab_server.solver.rebalance import rebalance_experts, rebalance_phy2log
from trimtab_server.solver.replication import replicate_experts
from trimtab_server.solver.settings import DEFAULT_EFFORT, Effort, Objective, Settings, settings_for
from trimtab_server.solver.split import best_split_loads

__all__ = [
    "DEFAULT_EFFORT",
    "Backend",
    "BackendName",
    "Budget",
    "Effort",
    "Evaluation",
    "Moves",
    "Objective",
    "Packing",
    "Plan",
    "Replicas",
    "Settings",
    "align",
    "backend_for",
    "balanced_packing",
    "best_split_loads",
    "evaluate",
    "improve",
    "pack",
    "place",
    "rebalance_experts",
    "rebalance_phy2log",
    "replicate_experts",
    "settings_for",
]
