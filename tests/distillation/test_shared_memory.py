"""What a process holds at most that has a share of a student's tensors: as `lmmpress.pruning.memory` predicts it."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from support.certain import certain
from support.tiny import make_model, text_config
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lmmpress.distillation.learner import Learner, sharded
from lmmpress.distillation.optimizers import own_part
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.blocks import blocks_of
from lmmpress.lmm.read_anatomy import anatomy_of
from lmmpress.pruning.memory import Training, training_bytes
from lmmpress.pruning.sizes import outside_and_block
from lmmpress.settings.economy import NO_ECONOMY

AVERAGES = 8  # bytes of a parameter that only an update makes


class Held(TorchDispatchMode):
    """Knows how many bytes tensors hold at most, of those that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def see(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            storage, key = tensor.untyped_storage(), tensor.untyped_storage()._cdata
            if key not in self._seen:
                self._seen[key] = weakref.ref(storage, partial(self._forget, key))
        # a storage that is let go of for a while is empty
        held = (one() for one in list(self._seen.values()))
        self.peak = max(self.peak, sum(one.nbytes() for one in held if one is not None))

    def _forget(self, key: int, _: object) -> None:
        del self._seen[key]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        leaves = (one for one in tree_leaves((args, kwargs, made)) if isinstance(one, torch.Tensor))
        self.see(one for one in leaves if not isinstance(one, DTensor))  # which has no memory of its own
        return made


@contextmanager
def processes(count: int) -> Iterator[None]:
    """In this context this process is the first of so many, of which the others do nothing."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def peak(config: dict[str, Any], tokens: int, shares: int) -> int:
    """The bytes held at most in a second portion of two rows, whose gradients are added to those of a first one."""
    model = make_model(config)
    learner = Learner(model)
    if shares > 1:
        learner = sharded(model, blocks_of(model, anatomy_of(config)), torch.device("cpu"), torch.float32)
    ids = torch.randint(5, 60, (2, tokens))

    def loss(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum()
        return found

    learner(loss, ids).backward()
    with Held() as held:
        held.see(
            own_part(one) for parameter in learner.parameters() for one in (parameter.data, certain(parameter.grad))
        )
        learner(loss, ids).backward()
    return int(held.peak)


def predicted(anatomy: Anatomy, kept: int, shares: int) -> int:
    outside, block = outside_and_block(anatomy)
    count = anatomy.parameters
    training = Training(count, count, 4, kept=kept, shares=shares, outside=outside, block=block)
    return training_bytes(training, NO_ECONOMY) - AVERAGES * count // shares


@pytest.mark.parametrize("tokens", [2, 32])
@pytest.mark.parametrize(("vocabulary", "blocks"), [(64, 8), (2000, 8), (64, 3)])
def test_a_share_takes_what_is_predicted(vocabulary: int, blocks: int, tokens: int) -> None:
    """Whether most of it is a student's weights, those outside of its blocks, or what its forward pass keeps."""
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": blocks, "tie_word_embeddings": False}
    config = text_config("llama", vocabulary, **sizes)
    anatomy = anatomy_of(config)
    kept = peak(config, tokens, 1) - 8 * anatomy.parameters
    for shares in (2, 8):
        with processes(shares):
            assert predicted(anatomy, kept, shares) == pytest.approx(peak(config, tokens, shares), rel=0.12)
