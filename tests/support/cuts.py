"""Cuts that tests apply."""

import torch

from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.tensor_cut import Cut
from lmmpress.pruning.choose import choose


def cut_of(anatomy: Anatomy, tower: str, axis: str, seed: int = 0, units: int | None = None) -> Cut:
    """A cut by random scores that removes about a third of an axis, or a number of units."""
    body = anatomy.towers[tower].axes[axis]
    removed = (units or max(1, body.width // body.unit // 3)) * body.unit
    generator = torch.Generator().manual_seed(seed)
    scores = {group.name: torch.rand(group.size, generator=generator) for group in body.groups}
    return choose(anatomy, tower, axis, removed, scores)
