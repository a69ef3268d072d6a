"""Whether the processes of a distillation hold the student whole, or a share of it each (`distillation.sharding`)."""

from math import prod
from typing import Literal

import torch

from lmmpress.distillation.optimizers import has_torchao
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.lesson import is_trained, side_of
from lmmpress.pruning.economy import can_fit
from lmmpress.pruning.memory import Training
from lmmpress.pruning.sizes import head_shapes
from lmmpress.settings.distillation import Distillation


def sharding_of(materials: Materials, checkpoint: str, settings: Distillation) -> Literal["none", "full"]:
    """How several processes hold a checkpoint while they train it. `auto` shares it where it does not fit a GPU whole,
    with no economy that the settings allow. Processes without a GPU share one memory anyway."""
    if settings.sharding != "auto":
        return settings.sharding
    if materials.accelerator.device.type != "cuda":
        return "none"
    room = min(torch.cuda.get_device_properties(gpu).total_memory for gpu in range(_gpus(materials, settings)))
    training = _whole(materials, checkpoint, settings)
    return "none" if can_fit(training, settings, room, has_torchao()) else "full"


def _gpus(materials: Materials, settings: Distillation) -> int:
    """How many GPUs of this machine take part; of other machines in the same training it has as many."""
    return materials.meeting.machines.processes if materials.meeting else settings.processes


def _whole(materials: Materials, checkpoint: str, settings: Distillation) -> Training:
    """What a GPU holds of a checkpoint that is trained whole; rows come on top."""
    side, anatomy, width = side_of(materials, checkpoint, settings), materials.anatomy, materials.dtype.itemsize
    numbers = {name: prod(shape) for name, shape in materials.anatomy_of(checkpoint).shapes.items()}
    teacher = sum(map(prod, head_shapes(anatomy))) if settings.cached else anatomy.parameters
    return Training(
        held=sum(numbers.values()),
        trained=sum(count for name, count in numbers.items() if is_trained(materials, side, name)),
        width=width,
        beside=width * teacher,
    )
