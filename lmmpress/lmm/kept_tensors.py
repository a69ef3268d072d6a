"""How many bytes a forward pass keeps for its backward pass."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Kept:
    """The bytes that a forward pass keeps for its backward pass: as it is (`usual`), and with blocks that are computed
    again (`recomputed`), where it keeps what blocks are given, what is computed outside of them, and one block."""

    usual: int
    recomputed: int


def kept_by(run: Callable[[], Any], model: torch.nn.Module, blocks: Iterable[torch.nn.Module]) -> Kept:
    """What `run`, a forward pass of `model`, keeps beside parameters and buffers, until that is counted."""
    seen = _Seen()
    handles = [handle for block in blocks for handle in seen.watch(block)]
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(seen.save, lambda tensor: tensor):
            result = run()
        own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        del result
    finally:
        for handle in handles:
            handle.remove()
    return seen.counted(own)


Storages = dict[int, int]
"""Bytes by address: what several tensors share counts once."""


@dataclass
class _Seen:
    """The memory that was kept: outside of blocks, inside of each block, and of what blocks are given."""

    outside: Storages = field(default_factory=dict)
    inside: list[Storages] = field(default_factory=list)
    given: Storages = field(default_factory=dict)
    in_block: bool = False

    def watch(self, block: torch.nn.Module) -> Iterable[Any]:
        def begin(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
            self.in_block = True
            self.inside.append({})
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, torch.Tensor):
                    _note(self.given, leaf)

        def end(*_: Any) -> None:
            self.in_block = False

        return block.register_forward_pre_hook(begin, with_kwargs=True), block.register_forward_hook(end)

    def save(self, tensor: torch.Tensor) -> torch.Tensor:
        _note(self.inside[-1] if self.in_block else self.outside, tensor)
        return tensor.detach()  # a result that is kept with its graph would never be let go of

    def counted(self, own: set[int]) -> Kept:
        def size(*parts: Storages) -> int:
            together: Storages = {}
            for part in parts:
                together |= part
            return sum(count for address, count in together.items() if address not in own)

        usual = size(self.outside, *self.inside)
        again = max((size(block) for block in self.inside), default=0)
        return Kept(usual, size(self.outside, self.given) + again if self.inside else usual)


def _note(storages: Storages, tensor: torch.Tensor) -> None:
    storage = tensor.untyped_storage()
    storages[storage.data_ptr()] = storage.nbytes()
