"""Decides how a training saves memory: as little as it can, from sizes alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from lmmpress.printing.numbers import in_gib
from lmmpress.pruning.memory import Training, training_bytes
from lmmpress.settings.distillation import Distillation
from lmmpress.settings.economy import Economy

ROOM = 0.9
"""The share of free memory that a training may take: the rest is for what cannot be foreseen."""

FLOOR = 8
"""The fewest rows at once that a training has of itself before it saves memory in another way."""

Trainings = Callable[[int], Training]
"""What decides how much memory a training takes, with so many rows at once."""

_SINGLE = 4  # bytes of a number in float32
_LADDER = (
    Economy(recompute=True),
    Economy(recompute=True, optimizer="adamw8bit"),
    Economy(recompute=True, optimizer="adamw8bit", weights="bfloat16"),
)
_MORE = "; with torchao there is more: pip install 'lmmpress[memory]'"


@dataclass(frozen=True)
class Way:
    """How a training goes into the memory: with an economy, and with so many `rows` at once of the `most` that it may
    have. Its text is as people say it."""

    economy: Economy
    rows: int
    most: int

    @property
    def saves(self) -> bool:
        """Whether it does anything for that."""
        return self.economy.saves or self.rows < self.most

    def __str__(self) -> str:
        if self.rows == self.most:
            return str(self.economy)
        fewer = f"{self.rows} row{'s' * (self.rows > 1)} at once"
        return f"{self.economy}, {fewer}" if self.economy.saves else fewer


def choose(trainings: Trainings, settings: Distillation, budget: int, most: int, has_torchao: bool = True) -> Way:
    """The first way that lets a training fit into `budget` bytes, of those that the settings allow; the last of them if
    none does.

    In this order: no economy, recomputation, averages of 8 bits, bfloat16 weights; each with those before it. Where
    `micro_batch_size` is `auto` each is tried with `most` rows at once, and then with half as many, down to FLOOR, the
    last down to a single row: fewer rows change only rounding, and take next to no time while they are many. What the
    settings name is kept. Of itself nothing is chosen that needs torchao where that is missing, nor weights of bfloat16
    where computation is in float32.
    """
    width = trainings(most).width
    economies = _allowed(width, settings, has_torchao)
    ways = list(_ways(economies, settings, most))
    needs = [training_bytes(trainings(way.rows), way.economy) for way in ways]
    place = next((place for place, need in enumerate(needs) if need <= ROOM * budget), None)
    at = len(ways) - 1 if place is None else place
    why = f"takes {in_gib(needs[at])} of {in_gib(budget)}"
    if place is None:
        more = len(_allowed(width, settings, has_torchao=True)) > len(economies)
        why += f", which may be too much: nothing that the plan allows takes less{_MORE if more else ''}"
    elif place:
        why += f"; with {ways[place - 1]} it would take {in_gib(needs[place - 1])}"
    return replace(ways[at], economy=ways[at].economy.model_copy(update={"why": why}))


def most_saving(settings: Distillation, width: int) -> Economy:
    """The economy that takes the least memory of those that `choose` may take, where computation has numbers of so many
    bytes."""
    return _allowed(width, settings, has_torchao=True)[-1]


def can_fit(training: Training, settings: Distillation, budget: int, has_torchao: bool = True) -> bool:
    """Whether a training fits with an economy that the settings allow."""
    return any(fits(training, way, budget) for way in _allowed(training.width, settings, has_torchao))


def fits(training: Training, economy: Economy, budget: int) -> bool:
    """Whether a training takes no more than ROOM of `budget` bytes."""
    return training_bytes(training, economy) <= ROOM * budget


def _ways(economies: list[Economy], settings: Distillation, most: int) -> Iterator[Way]:
    """Economies, each with ever fewer rows at once where the settings leave these open."""
    for economy in economies:
        rows, floor = most, 1 if economy is economies[-1] else FLOOR
        yield Way(economy, rows, most)
        while settings.micro_batch_size == "auto" and rows // 2 >= floor:
            rows //= 2
            yield Way(economy, rows, most)


def _allowed(width: int, settings: Distillation, has_torchao: bool) -> list[Economy]:
    """The economies that the settings allow, the least first, where computation has numbers of so many bytes."""
    least = settings.economy()
    found = [least]
    for more in _LADDER:
        way = settings.economy(more)
        of_torchao = way.needs_torchao and not least.needs_torchao
        changes_computation = way.weights != least.weights and width == _SINGLE
        if way not in found and not changes_computation and (has_torchao or not of_torchao):
            found.append(way)
    return found
