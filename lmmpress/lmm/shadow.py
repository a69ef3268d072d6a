"""Shadows of models: tensors that have shapes and no numbers, and a meter of what computing with them would take.

torch's fake tensors go through the operations of a CPU, its attention included, and hold no memory. So a model of any
size is built, run forwards and backwards in seconds, by the very code that trains it. A meter beside it sees every
operation: its products, the bytes that it reads and writes, and when the memory of its results is let go of.
"""

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from lmmpress.lmm.families.registry import family_of
from lmmpress.lmm.read_anatomy import first_line
from lmmpress.lmm.remote_code import make_known

_UNCHECKED = "TRANSFORMERS_DISABLE_TORCH_CHECK"


@dataclass(frozen=True)
class Taken:
    """What a computation takes: the FLOPs of its products (matrices, convolutions, attention; a multiplication and an
    addition are two), the bytes that its operations `moved` between memory and processor, the number of these `calls`,
    and the bytes held at a time: at the `peak`, and in the end (`left`)."""

    flops: int = 0
    moved: int = 0
    calls: int = 0
    peak: int = 0
    left: int = 0


@contextmanager
def shadows() -> Iterator[None]:
    """In this context new tensors have shapes and no numbers. What depends on a number cannot be computed, so
    transformers does not check that images are where their tokens are."""
    before = os.environ.get(_UNCHECKED)
    os.environ[_UNCHECKED] = "1"
    try:
        with FakeTensorMode():
            yield
    finally:
        if before is None:
            del os.environ[_UNCHECKED]
        else:
            os.environ[_UNCHECKED] = before


def shadow_of(config: dict[str, Any], dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """The model of a whole config, within `shadows`, as a run loads it: in evaluation mode."""
    import transformers
    from transformers.initialization import no_init_weights

    make_known(config)
    typed = transformers.AutoConfig.for_model(**config)
    with no_init_weights():  # some depend on the numbers drawn
        model: torch.nn.Module = getattr(transformers, family_of(config).auto_class).from_config(typed, dtype=dtype)
    model.tie_weights()  # type: ignore[operator]
    return model.eval()


class Meter(TorchDispatchMode):
    """Within this context every operation is counted. What is `held` before counts as memory, what else there is before
    does not."""

    def __init__(self) -> None:
        super().__init__()
        self._flops = self._moved = self._calls = self._now = self._most = 0
        self._known: dict[int, int] = {}

    @property
    def taken(self) -> Taken:
        """What was taken until now."""
        return Taken(self._flops, self._moved, self._calls, self._most, self._now)

    def hold(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count the memory of tensors from now on, each once, until nothing needs it any more."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known:
                self._known[storage._cdata] = size = storage.nbytes()
                self._now += size
                self._most = max(self._most, self._now)
                weakref.finalize(storage, self._let_go, storage._cdata)

    def _let_go(self, storage: int) -> None:
        self._now -= self._known.pop(storage)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(given) if isinstance(leaf, torch.Tensor)]
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        self.hold(results)
        own = {operand.untyped_storage()._cdata for operand in operands}
        fresh = [result for result in results if result.untyped_storage()._cdata not in own]
        if fresh or func._schema.is_mutable:  # anything else is another view of what there is
            self._calls += 1
            self._flops += _flops(func.overloadpacket, args, kwargs, given)
            if func.overloadpacket not in _MAKES_ROOM:
                self._moved += sum(tensor.numel() * tensor.element_size() for tensor in (*operands, *results))
        return given


def why_not(error: Exception) -> str:
    """Why a shadow cannot be computed, in one line."""
    return f"{type(error).__name__}: {first_line(error)}"


_aten = torch.ops.aten
_MAKES_ROOM = {_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided}


def _flops(packet: Any, args: Any, kwargs: Any, given: Any) -> int:
    count: Callable[..., Any] | None = _CPU_ATTENTION.get(packet) or flop_registry.get(packet)
    return int(count(*args, **kwargs, out_val=given)) if count else 0


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward(
    gradient: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))


# torch counts those of GPUs
_CPU_ATTENTION: dict[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
