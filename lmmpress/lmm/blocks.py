"""The blocks of a model as modules."""

from collections.abc import Iterator

import torch

from lmmpress.lmm.anatomy import Anatomy


def blocks_of(model: torch.nn.Module, anatomy: Anatomy) -> Iterator[torch.nn.Module]:
    """Every block of every tower."""
    for tower in anatomy.towers.values():
        for stack in tower.stacks:
            yield from model.get_submodule(stack.prefix).children()
