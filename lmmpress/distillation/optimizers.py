"""The optimizers of a training: torch's AdamW, or torchao's with averages of 8 bits or weights of bfloat16.

torchao compiles its update for each shape of a parameter. Images of pods have no compiler, and a cut changes shapes. So
it is run as it is written, on pieces of parameters, which bounds what it holds beside them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from lmmpress.errors import UserError
from lmmpress.host.extras import needs
from lmmpress.host.quiet import quiet_torchao
from lmmpress.settings.economy import Economy

PIECE = 1 << 20
"""The most numbers of a parameter that are updated at a time. torchao holds some copies of them."""

_BLOCK = 256  # numbers that share a scale: a piece of another size keeps its averages in float32


def optimizer_of(
    parameters: Sequence[torch.nn.Parameter], rate: float, weight_decay: float, economy: Economy
) -> torch.optim.Optimizer:
    """AdamW for these parameters. Raises UserError if torchao is needed and missing."""
    if not economy.needs_torchao:
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay, fused=True)
    check_installed(economy)
    return _in_pieces(economy)(parameters, rate, weight_decay)


def check_installed(economy: Economy) -> None:
    """Raise UserError with what to install if the package is missing that an economy needs."""
    if economy.needs_torchao:
        what = "optimizer: adamw8bit" if economy.optimizer == "adamw8bit" else "weights: bfloat16"
        with quiet_torchao():
            needs("torchao", f"distillation.{what}", "torchao.optim")


def has_torchao() -> bool:
    """Whether torchao can be imported."""
    try:
        check_installed(Economy(optimizer="adamw8bit"))
    except UserError:
        return False
    return True


def _in_pieces(economy: Economy) -> Callable[[Sequence[torch.nn.Parameter], float, float], torch.optim.Optimizer]:
    """An optimizer of torchao that is given parameters as pieces."""
    from torchao.optim import AdamW8bit, _AdamW
    from torchao.optim.subclass_8bit import OptimState8bit

    kind: Any = AdamW8bit if economy.optimizer == "adamw8bit" else _AdamW

    class InPieces(kind):
        def __init__(self, parameters: Sequence[torch.nn.Parameter], rate: float, weight_decay: float) -> None:
            self._whole = [(parameter, pieces_of(own_part(parameter.detach()))) for parameter in parameters]
            pieces = [piece for _, own in self._whole for piece in own]
            self._updates, self._device = 0, parameters[0].device
            super().__init__(
                pieces, lr=rate, weight_decay=weight_decay, bf16_stochastic_round=economy.weights == "bfloat16"
            )

        def _new_buffer(self, piece: torch.Tensor, signed: bool) -> torch.Tensor:
            state: Any = super()._new_buffer(piece, signed)
            if isinstance(state, OptimState8bit) and not signed:
                # a mean square that is rounded to zero would make an update without bound where the gradient ends
                state.qmap[0] = state.qmap[1] / 2
            # those that are too small for 8 bits: an average in bfloat16 would soon stand still
            wide: torch.Tensor = state.float()
            return wide

        def _begin(self) -> None:
            # all averages before the first update: made one by one between what that holds for a moment, they would
            # lie scattered, and no allocator could give back what is free between them
            for piece in (piece for _, own in self._whole for piece in own):
                averages = {"exp_avg": self._new_buffer(piece, True), "exp_avg_sq": self._new_buffer(piece, False)}
                self.state[piece] = {"step": torch.tensor(0.0)} | averages

        def step(self, closure: Any = None) -> None:
            if not self.state:
                self._begin()
            for parameter, pieces in self._whole:
                if parameter.grad is not None:
                    for piece, gradient in zip(pieces, pieces_of(own_part(parameter.grad).contiguous()), strict=True):
                        piece.grad = gradient
            with torch.compiler.set_stance("force_eager"), _drawing(self._updates, self._device):
                super().step(closure)
            self._updates += 1
            super().zero_grad()

        def zero_grad(self, set_to_none: bool = True) -> None:
            super().zero_grad(set_to_none)
            for parameter, _ in self._whole:
                parameter.grad = None

    return InPieces


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this process has of a tensor that processes share; else the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def pieces_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """A tensor's numbers, as views: whole blocks, at most PIECE numbers each, and what is left of a block."""
    flat = tensor.view(-1)
    whole = len(flat) - len(flat) % _BLOCK
    return [piece for part in (flat[:whole], flat[whole:]) if len(part) for piece in part.split(PIECE)]


@contextmanager
def _drawing(seed: int, device: torch.device) -> Iterator[None]:
    """What rounds at random within this context is the same in every process and every run, and outside of it nothing
    changes."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
