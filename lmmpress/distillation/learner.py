"""A student as the processes of a training hold it: whole in each of them, or a share of every tensor in each.

Shares are those of FSDP2, torch's `fully_shard`. It is called here, because accelerate calls it for GPUs alone: so a
training by processes on a CPU is the same as one on GPUs.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.distributed import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor


class Learner(torch.nn.Module):
    """A model that runs a function of it: `learner(function, batch)` is `function(model, batch)`.

    The tensors of a model of which this process has a share are whole only while a forward pass of this module, or of
    one of the model's blocks, runs. So a loss that uses the head or the projector by itself has to be computed in here.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., torch.Tensor], *arguments: Any) -> torch.Tensor:
        return function(self.model, *arguments)

    @property
    def is_sharded(self) -> bool:
        """Whether each process has a share of every tensor. All of them then have to make the same forward passes, one
        after the other: each gathers the tensors that it needs from all processes."""
        return isinstance(self, FSDPModule)


def sharded(
    model: torch.nn.Module, blocks: Iterable[torch.nn.Module], device: torch.device, dtype: torch.dtype
) -> Learner:
    """Leave each process a share of every tensor of a model, on a device, block after block: so the model may be on the
    CPU, and larger than what the device has room for. It computes in `dtype`."""
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    # the blocks hand over what they hand over in one process; gathered weights of two bytes need no copies of autocast
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if dtype is torch.bfloat16:
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    learner = Learner(model)
    for module in (*blocks, learner):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    return learner


def whole_state(learner: Learner) -> dict[str, torch.Tensor]:
    """The tensors of a model by name. Those of a sharded one are gathered one after the other, on the CPU of the first
    process, and all other processes have none: each of them has to call it."""
    if not learner.is_sharded:
        return dict(learner.model.state_dict())
    state = {}
    for name, value in learner.model.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if torch.distributed.get_rank() == 0:
            state[name] = whole.cpu()
    return state
