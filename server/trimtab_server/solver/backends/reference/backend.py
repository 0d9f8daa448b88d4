"""The backend that defines the answers: batched torch operations, on any device."""

from __future__ import annotations

from torch import Tensor

from trimtab_server.domain.balance import gpu_loads, imbalance
from trimtab_server.domain.moves import moves_between
from trimtab_server.solver.backends.backend import Backend
from trimtab_server.solver.backends.reference.align import align
from trimtab_server.solver.backends.reference.bound import lowest_imbalance
from trimtab_server.solver.backends.reference.improve import improve
from trimtab_server.solver.backends.reference.maps import slot_maps
from trimtab_server.solver.backends.reference.packing import pack
from trimtab_server.solver.backends.reference.plan import plan
from trimtab_server.solver.backends.reference.replication import replicate


class Reference(Backend):
    """Readable and slow: the other backends are compared with it. See `Backend`."""

    name = "reference"
    replicate = staticmethod(replicate)
    pack = staticmethod(pack)
    plan = staticmethod(plan)
    improve = staticmethod(improve)
    bound = staticmethod(lowest_imbalance)
    moves = staticmethod(moves_between)
    align = staticmethod(align)
    slot_maps = staticmethod(slot_maps)

    def balance(self, phy2log_LR: Tensor, load_LE: Tensor, num_gpus: int) -> tuple[Tensor, Tensor]:
        """See `Backend`."""
        gpu_load_LG = gpu_loads(phy2log_LR, load_LE, num_gpus)
        return gpu_load_LG, imbalance(gpu_load_LG)
