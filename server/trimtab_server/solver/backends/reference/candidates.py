"""The steps that `improve` may take in a layer, each with its gain and net moves.

All sums are of integers (see `quantise`), so gains are exact. Axes: L layers,
G GPUs, S slots of a GPU, R = G * S, E experts, C candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trimtab_server.domain.arrays import replica_counts

_NEVER = -1


class Layers(NamedTuple):
    """The current state of layers, from which candidates are computed.

    Attributes:
        phy2log_LR: int64, the expert of each slot.
        weight_LE: int64, the whole load of each expert.
        copies_LEG: int64, slots of each expert on each GPU.
        logcnt_LE: int64, slots of each expert.
        load_LG: int64, load of each GPU; a replica weighs weight // logcnt.
    """

    phy2log_LR: Tensor
    weight_LE: Tensor
    copies_LEG: Tensor
    logcnt_LE: Tensor
    load_LG: Tensor

    @classmethod
    def of(cls, phy2log_LR: Tensor, weight_LE: Tensor, num_gpus: int) -> Layers:
        """Derive the state of layers from their slots."""
        layers, experts = weight_LE.shape
        gpu_R = torch.arange(phy2log_LR.shape[1], device=phy2log_LR.device) * num_gpus
        gpu_R = gpu_R // phy2log_LR.shape[1]
        logcnt_LE = replica_counts(phy2log_LR, experts)
        copies_LEG = weight_LE.new_zeros(layers, experts * num_gpus)
        cell_LR = phy2log_LR * num_gpus + gpu_R
        copies_LEG.scatter_add_(1, cell_LR, torch.ones_like(cell_LR))
        share_LR = (weight_LE // logcnt_LE).gather(1, phy2log_LR)
        load_LG = share_LR.unflatten(1, (num_gpus, -1)).sum(-1)
        return cls(
            phy2log_LR, weight_LE, copies_LEG.unflatten(1, (experts, -1)), logcnt_LE, load_LG
        )


class Candidates(NamedTuple):
    """Steps of one kind that each layer could take: one for each slot A and each B.

    Attributes:
        slot_LA: int64, the slot that changes.
        other_LB: int64, the slot with which it swaps experts; None for transfers,
            where B is the expert that gets the slot.
        gain_LAB: int64, by how much the sum of squared GPU loads falls; <= 0 for steps
            that are not allowed.
        cost_LAB: float64, the net moves that the step adds.
    """

    slot_LA: Tensor
    other_LB: Tensor | None
    gain_LAB: Tensor
    cost_LAB: Tensor


def swaps(layers: Layers, allowed_LEG: Tensor, cost_LEG: Tensor, top_k: int) -> Candidates:
    """Swaps of a slot on the K heaviest GPUs with one on the K lightest.

    A swap is not allowed if one of the experts already lies on the GPU that it would go to, or
    may not lie there.
    """
    gpus = layers.load_LG.shape[1]
    slots = layers.phy2log_LR.shape[1] // gpus
    heavy_LK = _heaviest(layers, top_k)
    light_LK = torch.argsort(layers.load_LG, dim=1, stable=True)[:, :top_k]
    heavy_slot_LA, light_slot_LB = _slots_of(heavy_LK, slots), _slots_of(light_LK, slots)
    u_LA1 = layers.phy2log_LR.gather(1, heavy_slot_LA).unsqueeze(2)
    v_L1B = layers.phy2log_LR.gather(1, light_slot_LB).unsqueeze(1)
    gpu_LA1, gpu_L1B = (heavy_slot_LA // slots).unsqueeze(2), (light_slot_LB // slots).unsqueeze(1)
    layer_L11 = torch.arange(len(u_LA1), device=u_LA1.device).view(-1, 1, 1)

    share_LE = layers.weight_LE // layers.logcnt_LE
    delta = share_LE[layer_L11, u_LA1] - share_LE[layer_L11, v_L1B]
    gap = layers.load_LG[layer_L11, gpu_LA1] - layers.load_LG[layer_L11, gpu_L1B]
    gain = 2 * delta * (gap - delta)
    free_LEG = allowed_LEG & (layers.copies_LEG == 0)
    open_ = free_LEG[layer_L11, u_LA1, gpu_L1B] & free_LEG[layer_L11, v_L1B, gpu_LA1]
    cost = (
        cost_LEG[layer_L11, u_LA1, gpu_L1B]
        + cost_LEG[layer_L11, v_L1B, gpu_LA1]
        - cost_LEG[layer_L11, u_LA1, gpu_LA1]
        - cost_LEG[layer_L11, v_L1B, gpu_L1B]
    )
    gain.masked_fill_(~open_, _NEVER)
    return Candidates(heavy_slot_LA, light_slot_LB, gain, cost)


def transfers(layers: Layers, allowed_LEG: Tensor, cost_LEG: Tensor, top_k: int) -> Candidates:
    """Transfers of a slot, from an expert e that has several to an expert f of the K heaviest GPUs.

    Experts of other GPUs are hardly ever the best takers: on the replays of `make bench
    ARGS=replay`, live balancedness with all GPUs is between 0.006 lower and 0.002 higher than
    with 4, and the search takes several times as long.

    The other replicas of e, one fewer now, get heavier by `rise` each; those of f, one more
    now, get lighter by `fall` each. With d_h the change of GPU h, the sum of squares changes by
    the sum of 2 W_h d_h + d_h^2, expanded below into terms of e, of f, and of both. A step is
    not allowed if f already lies on the GPU, or if a GPU would get heavier than the heaviest is
    now: the GPU of the slot, or one that keeps a replica of e and that f relieves too little.
    """
    donor_LD = _donor_slots(layers)
    slots = layers.phy2log_LR.shape[1] // layers.load_LG.shape[1]
    gpu_LD = donor_LD // slots
    e_LD = layers.phy2log_LR.gather(1, donor_LD)
    count, weight = layers.logcnt_LE, layers.weight_LE
    now_LE, more_LE = weight // count, weight // (count + 1)
    rise_LE, fall_LE = weight // (count - 1).clamp(min=1) - now_LE, now_LE - more_LE
    copies_LEG = layers.copies_LEG
    pull_LE = (copies_LEG * layers.load_LG.unsqueeze(1)).sum(2)
    square_LE = copies_LEG.square().sum(2)

    layer_L1 = torch.arange(len(e_LD), device=e_LD.device).unsqueeze(1)
    load_LD = layers.load_LG.gather(1, gpu_LD)
    rise_LD = rise_LE.gather(1, e_LD)
    here_LD = copies_LEG[layer_L1, e_LD, gpu_LD]
    of_e_LD = 2 * rise_LD * (pull_LE.gather(1, e_LD) - load_LD)
    of_e_LD += rise_LD.square() * (square_LE.gather(1, e_LD) - 2 * here_LD + 1)
    of_f_LE = fall_LE * (fall_LE * square_LE - 2 * pull_LE)
    # GPUs that e and f share; f is not on this one. Small integers are exact in float64.
    both_LDE = torch.bmm(copies_LEG[layer_L1, e_LD].double(), copies_LEG.double().mT).long()
    change_LDE = more_LE.unsqueeze(1) - now_LE.gather(1, e_LD).unsqueeze(2)
    stays_LD1 = (rise_LD * (here_LD - 1)).unsqueeze(2)
    delta_LDE = (
        of_e_LD.unsqueeze(2)
        + of_f_LE.unsqueeze(1)
        - 2 * rise_LD.unsqueeze(2) * fall_LE.unsqueeze(1) * both_LDE
        + change_LDE * (2 * load_LD.unsqueeze(2) + change_LDE + 2 * stays_LD1)
    )
    peak_L1 = layers.load_LG.amax(1, keepdim=True)
    fits_LDE = load_LD.unsqueeze(2) + change_LDE + stays_LD1 <= peak_L1.unsqueeze(2)
    risen_LD = load_LD + rise_LD * here_LD
    fits_LDE &= _too_heavy_elsewhere(layers, risen_LD - peak_L1, fall_LE, donor_LD) == 0
    free_LEG = allowed_LEG & (copies_LEG == 0)
    heavy_LG = torch.zeros_like(layers.load_LG).scatter_(1, _heaviest(layers, top_k), 1)
    hot_LE = (copies_LEG * heavy_LG.unsqueeze(1)).sum(2) > 0
    fits_LDE &= hot_LE.unsqueeze(1)
    fits_LDE &= free_LEG.mT[layer_L1, gpu_LD] & (count.gather(1, e_LD) > 1).unsqueeze(2)
    cost_LDE = cost_LEG.mT[layer_L1, gpu_LD] - cost_LEG[layer_L1, e_LD, gpu_LD].unsqueeze(2)
    return Candidates(donor_LD, None, torch.where(fits_LDE, -delta_LDE, _NEVER), cost_LDE)


def _heaviest(layers: Layers, top_k: int) -> Tensor:
    """The heaviest GPUs in descending order, equal ones by number, [L, K]."""
    return torch.argsort(layers.load_LG, dim=1, descending=True, stable=True)[:, :top_k]


def _slots_of(gpu_LK: Tensor, slots: int) -> Tensor:
    """All slots of the given GPUs, [L, K * S]."""
    offset_S = torch.arange(slots, device=gpu_LK.device)
    return (gpu_LK.unsqueeze(2) * slots + offset_S).flatten(1)


def _donor_slots(layers: Layers) -> Tensor:
    """Slots of experts that have several, [L, D] with D >= 1; other slots fill up the end."""
    spare_LR = layers.logcnt_LE.gather(1, layers.phy2log_LR) > 1
    width = max(1, int(spare_LR.sum(1).max()))
    return torch.argsort((~spare_LR).to(torch.int8), dim=1, stable=True)[:, :width]


def _too_heavy_elsewhere(
    layers: Layers, over_LD: Tensor, fall_LE: Tensor, donor_LD: Tensor
) -> Tensor:
    """How many replicas of e are on GPUs that get too heavy if its slot goes to f, [L, D, E].

    A GPU that keeps its replicas of e exceeds the peak by `over_LD`, minus the load that the
    replicas of f on it lose. So each slot of e determines for each f whether its GPU gets too
    heavy. The answer sums this up over all slots of e, except those on the GPU of the slot that
    f gets, where e has one replica fewer. It is valid if f does not lie on that GPU yet, as in
    every step that is allowed.

    Args:
        layers: the current state.
        over_LD: int64, by how much the GPU of each donor slot exceeds the peak if all
            its replicas of e stay and get heavier.
        fall_LE: int64, by how much each replica of f gets lighter.
        donor_LD: int64, all slots of experts e that have several.
    """
    slots = layers.phy2log_LR.shape[1] // layers.load_LG.shape[1]
    gpu_LD, e_LD = donor_LD // slots, layers.phy2log_LR.gather(1, donor_LD)
    layer_L1 = torch.arange(len(e_LD), device=e_LD.device).unsqueeze(1)
    relief_LEG = fall_LE.unsqueeze(2) * layers.copies_LEG
    heavy_LDE = (over_LD.unsqueeze(2) > relief_LEG.mT[layer_L1, gpu_LD]).long()
    all_LEE = relief_LEG.new_zeros(*fall_LE.shape, fall_LE.shape[1])
    all_LEE.scatter_add_(1, e_LD.unsqueeze(2).expand_as(heavy_LDE), heavy_LDE)
    here_LD1 = layers.copies_LEG[layer_L1, e_LD, gpu_LD].unsqueeze(2)
    return all_LEE[layer_L1, e_LD] - here_LD1 * heavy_LDE
