"""Refuses a run whose models cannot fit into this machine, before it begins."""

import torch

from lmmpress.errors import UserError
from lmmpress.host.memory import whole_memory
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.plan import Plan
from lmmpress.printing.numbers import in_gib
from lmmpress.pruning.economy import most_saving
from lmmpress.pruning.memory import Need
from lmmpress.pruning.sizes import Size, predict_memory

_PARTS = ("importance", "distill", "evaluate")
"""The parts that compute, each in a process of its own or in one that makes a whole run."""

_WAYS = {
    "importance": "set importance.passes higher, or importance.accumulation: batch",
    "distill": "use a card with more memory, or a machine with more",
    "evaluate": "use a card with more memory, or a machine with more",
}


def check_room(plan: Plan, anatomy: Anatomy, sizes: list[Size]) -> None:
    """Raise UserError if a part of a run needs more memory than this machine's GPU, or this machine, has at all, even
    without rows, and with all that the plan allows for saving it. `sizes` are those of the plan's steps."""
    on_gpu = torch.cuda.is_available()
    width = 2 if plan.dtype == "bfloat16" or (plan.dtype == "auto" and on_gpu) else 4
    least = most_saving(plan.distillation, width)
    named = {
        "optimizer": least.optimizer,
        "weights": least.weights,
        "recompute": "always" if least.recompute else "never",
    }
    if on_gpu and plan.distillation.sharding == "auto":
        named["sharding"] = "full"
    plan = plan.model_copy(update={"distillation": plan.distillation.model_copy(update=named)})
    there = torch.cuda.get_device_properties(0).total_memory if on_gpu else whole_memory()
    refuse(predict_memory(anatomy, plan, sizes), there, on_gpu)


def refuse(needs: tuple[Need, ...], there: int, on_gpu: bool) -> None:
    """Raise UserError for the part that needs the most, if that is more than is `there`."""
    least = {need.part: need.gpu if on_gpu else need.process for need in needs if need.part in _PARTS}
    part = max(least, key=lambda name: least[name])
    if least[part] > there:
        where = "each GPU here has" if on_gpu else "this machine has"
        raise UserError(
            f"{part} needs {in_gib(least[part])} of memory at least, without rows, and {where} {in_gib(there)}: "
            f"{_WAYS[part]} (`lmmpress plan --hardware auto` shows every stage; --force begins the run all the same)"
        )
