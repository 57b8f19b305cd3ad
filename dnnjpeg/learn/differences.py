"""The damage of each frequency by differences of losses, for networks without gradients.

Frequencies are taken together in groups with about the same u + v. For each group, the network reads pictures
in which only this group is finer, and only this group is coarser. The difference of the two losses is shared
among the frequencies of the group in proportion to the squares of their changes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnnjpeg.learn.objective import Objective
from dnnjpeg.soft.jpeg import from_coefficients

PICTURES = 16  # of a trial: each is read twice for each group

_BORDERS = (1, 2, 3, 4, 5, 7, 9)  # of u + v, where groups begin
_GROUPS = np.digitize(np.add.outer(np.arange(8), np.arange(8)).ravel(), _BORDERS)


def damage_by_differences(
    objective: Objective,
    which: int,
    numbers: NDArray[np.int64],
    middle: Sequence[Tensor],
    change: Sequence[Tensor],
    size: tuple[int, int],
    subsampling: str,
    tables: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What each frequency adds to the loss of a network, as the coefficients change.

    which: number of the network. numbers: int64 N, the pictures.
    middle: coefficients midway, as `to_coefficients` gives them. change: from the finer to the coarser ones.
    size: height and width of the pictures.

    Returns the loss midway, float32 N, and the damage, float32 N x tables x 64.
    """
    damage = np.zeros((len(numbers), tables, 64), np.float32)

    def loss_at(planes: Sequence[Tensor]) -> NDArray[np.float32]:
        pixels = from_coefficients(list(planes), *size, subsampling)
        return objective.losses(which, pixels, numbers).cpu().numpy()

    for table in range(tables):
        own = [min(c, tables - 1) == table for c in range(3)]
        energies = [delta.square().sum(1) for delta, is_own in zip(change, own, strict=True) if is_own]
        squares = torch.stack(energies).sum(0).cpu().numpy()
        for group in range(len(_BORDERS) + 1):
            members = group == _GROUPS
            total = squares[:, members].sum(1, keepdims=True)
            if not total.any():
                continue
            mask = torch.from_numpy(members).to(change[0])
            steps = [mask * delta / 2 if is_own else 0 for delta, is_own in zip(change, own, strict=True)]
            finer, coarser = (
                loss_at([z + sign * step for z, step in zip(middle, steps, strict=True)]) for sign in (-1, 1)
            )
            shares = squares[:, members] / np.maximum(total, 1e-12)
            damage[:, table, members] = (coarser - finer)[:, None] * shares
    return loss_at(middle), damage
