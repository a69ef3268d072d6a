"""A memory that is too small for more than some rows at once, as torch tells it; alone, or as one of several processes
that distil:

python -m torch.distributed.run --nproc-per-node 2 -m support.small_memory CHECKPOINT DATA TARGET ROWS
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

GPU = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB"
CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"

_SOME = 4  # gradients


def no_memory(kind: Literal["gpu", "cpu"] = "gpu") -> RuntimeError:
    """What an allocation that fails raises."""
    return torch.OutOfMemoryError(GPU) if kind == "gpu" else RuntimeError(f"{CPU} 2147483648 bytes. Error code 12")


@contextmanager
def memory_for(
    rows: int,
    model: torch.nn.Module,
    error: RuntimeError | None = None,
    after: int = 0,
    where: Literal["forward", "backward"] = "forward",
) -> Iterator[list[int]]:
    """In this block a model has memory for so many rows at once, after so many calls in which it had more. More fail
    with an error: at once, or in the backward pass when some gradients have been computed. Yields the rows of each
    call."""
    seen: list[int] = []
    gradients = 0

    def forward(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal gradients
        seen.append(len(next(kwargs[name] for name in ("input_ids", "inputs_embeds") if kwargs.get(name) is not None)))
        gradients = 0
        fail_if_too_many(where == "forward")

    def backward(_: torch.Tensor) -> None:
        nonlocal gradients
        gradients += 1
        fail_if_too_many(where == "backward" and gradients == _SOME)

    def fail_if_too_many(here: bool) -> None:
        if here and seen[-1] > rows and len(seen) > after:
            raise error or no_memory()

    handles = [model.register_forward_pre_hook(forward, with_kwargs=True)]
    handles += [parameter.register_hook(backward) for parameter in model.parameters() if parameter.requires_grad]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _main(checkpoint: Path, data: Path, target: Path, rows: int) -> None:
    """Distil in this process, the second of which has memory for so many rows; the first writes losses, weights and
    its rows at once into a file."""
    from accelerate import Accelerator

    from lmmpress.lmm.at_once import remembering
    from lmmpress.settings.distillation import Distillation
    from support.exact_distillation import SETTINGS, distil, exact_pair

    settings = Distillation(**SETTINGS | {"batch_size": 7, "micro_batch_size": "auto"})
    accelerator, pair = Accelerator(cpu=True), exact_pair(checkpoint, data)
    enough = 64 if accelerator.is_main_process else rows
    with remembering({}) as at_once, memory_for(enough, pair[0], where="backward"):
        losses = distil(pair, settings)
    if accelerator.is_main_process:
        weights = {name: value.clone() for name, value in pair[0].state_dict().items()}  # tied ones share memory
        save_file(weights, target, {"found": json.dumps({"losses": losses, "at_once": at_once})})
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
