"""What processes that train together exchange: weights once, gradients and losses after every update.

Nothing is exchanged while gradients are computed, as a backward pass of DistributedDataParallel would do it. So a
process that runs out of memory in an update begins that update anew by itself, and the others wait for its gradients.
"""

from collections.abc import Sequence

import torch
from accelerate import Accelerator

from lmmpress.lmm.at_once import AtOnce


def begin_alike(parameters: Sequence[torch.nn.Parameter], accelerator: Accelerator) -> None:
    """Give all processes the parameters of the first: least squares may round otherwise on another GPU."""
    if accelerator.num_processes > 1:
        for parameter in parameters:
            torch.distributed.broadcast(parameter.data, src=0)


def added_up(
    loss: torch.Tensor, parameters: Sequence[torch.nn.Parameter], at_once: AtOnce, accelerator: Accelerator
) -> float:
    """Add up a loss and the parameters' gradients over all processes, and take the fewest rows at once of them all, so
    that no process runs out of memory where another one has. Returns the sum of the losses."""
    if accelerator.num_processes == 1:
        return float(loss)
    told = accelerator.gather(torch.stack([loss, loss.new_tensor(at_once.rows)])[None])
    losses, rows = told.unbind(1)
    at_once.lower(int(rows.min()))
    for parameter in parameters:
        if parameter.grad is None:  # of an image side whose process has only rows without images
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)
    return float(losses.sum())
