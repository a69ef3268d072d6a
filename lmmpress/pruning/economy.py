"""Decides how a training saves memory: as little as it can, from sizes alone."""

from lmmpress.printing.numbers import in_gib
from lmmpress.pruning.memory import Training, training_bytes
from lmmpress.settings.distillation import Distillation
from lmmpress.settings.economy import Economy

ROOM = 0.9
"""The share of free memory that a training may take: the rest is for what cannot be foreseen."""

_SINGLE = 4  # bytes of a number in float32
_LADDER = (
    Economy(recompute=True),
    Economy(recompute=True, optimizer="adamw8bit"),
    Economy(recompute=True, optimizer="adamw8bit", weights="bfloat16"),
)
_MORE = "; with torchao there is more: pip install 'lmmpress[memory]'"


def choose(training: Training, settings: Distillation, budget: int, has_torchao: bool = True) -> Economy:
    """The first economy that lets a training fit into `budget` bytes, of those that the settings allow; the last of
    them if none does.

    In this order: none, recomputation, averages of 8 bits, bfloat16 weights; each with those before it. What the
    settings name is kept. Of itself nothing is chosen that needs torchao where that is missing, nor weights of bfloat16
    where computation is in float32.
    """
    ways = _allowed(training, settings, has_torchao)
    place = next((place for place, way in enumerate(ways) if fits(training, way, budget)), len(ways) - 1)
    why = f"takes {in_gib(training_bytes(training, ways[place]))} of {in_gib(budget)}"
    if not fits(training, ways[place], budget):
        more = len(_allowed(training, settings, has_torchao=True)) > len(ways)
        why += f", which may be too much: nothing that the plan allows takes less{_MORE if more else ''}"
    elif place:
        why += f"; with {ways[place - 1]} it would take {in_gib(training_bytes(training, ways[place - 1]))}"
    return ways[place].model_copy(update={"why": why})


def most_saving(settings: Distillation, width: int) -> Economy:
    """The economy that takes the least memory of those that `choose` may take, where computation has numbers of so many
    bytes."""
    return _allowed(Training(1, 1, width), settings, has_torchao=True)[-1]


def fits(training: Training, economy: Economy, budget: int) -> bool:
    """Whether a training takes no more than ROOM of `budget` bytes."""
    return training_bytes(training, economy) <= ROOM * budget


def _allowed(training: Training, settings: Distillation, has_torchao: bool) -> list[Economy]:
    """The economies that the settings allow, the least first."""
    least = settings.economy()
    found = [least]
    for more in _LADDER:
        way = settings.economy(more)
        of_torchao = way.needs_torchao and not least.needs_torchao
        changes_computation = way.weights != least.weights and training.width == _SINGLE
        if way not in found and not changes_computation and (has_torchao or not of_torchao):
            found.append(way)
    return found
