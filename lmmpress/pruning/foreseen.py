"""What a plan will take on some hardware, as a table and a last line: whether it fits, and what to change."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from lmmpress.lmm.anatomy import Anatomy
from lmmpress.plan import Plan
from lmmpress.printing.numbers import in_bytes, in_gib, in_short, in_time
from lmmpress.printing.sheet import Grid, Part, Shown
from lmmpress.pruning.cache_sizes import said_of
from lmmpress.pruning.economy import ROOM
from lmmpress.pruning.foresight import Foreseen, caches_foreseen, foreseen, in_hours, most_rows, utilisation
from lmmpress.pruning.hardware import Hardware, card_names, hardware_of
from lmmpress.pruning.memory import BASE, CONTEXT
from lmmpress.pruning.row_shapes import AllRows

_WORDS = {"before": "the start", "after": "the end"}


@dataclass(frozen=True, repr=False)
class Foresight(Shown):
    """What every stage of a plan takes on some hardware; `assumed` says what is not known of its rows, `caches` how
    large they are, and `advice` what to change if it does not fit."""

    hardware: Hardware
    stages: tuple[Foreseen, ...]
    assumed: str
    advice: str
    caches: str = ""

    @property
    def worst(self) -> Foreseen:
        """The stage that needs the most memory."""
        return max(self.stages, key=lambda stage: stage.memory)

    @property
    def fits(self) -> bool:
        """Whether every stage fits into a card's memory, with some room left."""
        return _fits(self.worst.memory, self.hardware)

    @property
    def utilisation(self) -> float:
        """The share of the hardware's FLOPs that the whole run comes to."""
        return utilisation(self.stages, self.hardware)

    def as_dict(self) -> dict[str, Any]:
        """What `lmmpress plan --hardware --json` prints of it."""
        return {
            "hardware": asdict(self.hardware),
            "stages": [asdict(stage) for stage in self.stages],
            "utilisation": self.utilisation,
            "assumed": self.assumed,
            "caches": self.caches,
            "fits": self.fits,
            "advice": self.advice,
        }

    def __repr__(self) -> str:
        return f"<{self.hardware.name}: {self._verdict()}>"

    def shown(self) -> tuple[Part, ...]:
        """A row for each stage, what was assumed, and whether it fits."""
        on_gpu = self.hardware.on_gpu
        head = ("stage", "steps", "leaves", "memory", "auto", "FLOPs", "time", "GPU hours", "stored")
        rows = [self._row(stage) for stage in self.stages]
        flops, seconds = (sum(getattr(stage, key) for stage in self.stages) for key in ("flops", "seconds"))
        whole = ("all", "", "", in_gib(self.worst.memory), "", f"{flops:.1e}", in_time(seconds))
        hours = f"{in_hours(self.stages, self.hardware):.2f}" if on_gpu else ""
        rows.append((*whole, hours, in_bytes(sum(stage.stored for stage in self.stages))))
        grid = Grid(head, tuple(rows), frozenset({len(rows) - 1}))
        count = self.hardware.count
        several = (
            f"{count} of them, which distil together (what they exchange takes no time here); " if count > 1 else ""
        )
        return (
            grid,
            f"{self.hardware.name}: {several}{self.hardware.how}; so this run comes to {self.utilisation:.0%} of its "
            "FLOPs; reading and writing checkpoints comes on top",
            *((self.assumed,) if self.assumed else ()),
            *((self.caches,) if self.caches else ()),
            self._verdict(),
        )

    def _row(self, stage: Foreseen) -> tuple[str, ...]:
        hours = f"{stage.seconds * self.hardware.count / 3600:.2f}" if self.hardware.on_gpu else ""
        return (
            _WORDS.get(stage.name, stage.name),
            str(stage.steps or ""),
            in_short(stage.parameters),
            f"{in_gib(stage.memory)} {stage.part}",
            stage.chosen,
            f"{stage.flops:.1e}",
            in_time(stage.seconds),
            hours,
            in_bytes(stage.stored),
        )

    def _verdict(self) -> str:
        most = f"{in_gib(self.worst.memory)} of {in_gib(self.hardware.memory)}"
        where = f"{self.worst.part} of {_WORDS.get(self.worst.name, self.worst.name)}"
        if self.fits:
            return f"fits: at most {most} ({where})"
        return f"does not fit: {where} needs {most}; {self.advice}"


def foresight(anatomy: Anatomy, plan: Plan, hardware: Hardware, rows: AllRows, assumed: str = "") -> Foresight:
    """What a plan in whole numbers takes on some hardware, with such rows."""
    stages = foreseen(anatomy, plan, hardware, rows)
    found = Foresight(hardware, stages, assumed, "", _said_of_caches(stages, anatomy, plan, hardware, rows))
    return found if found.fits else replace(found, advice=_advice(found, anatomy, plan, rows))


def _said_of_caches(
    stages: tuple[Foreseen, ...], anatomy: Anatomy, plan: Plan, hardware: Hardware, rows: AllRows
) -> str:
    """A line about the caches. What it costs that some have no room is what the same plan would take if they had."""
    caches, more = caches_foreseen(anatomy, plan, hardware, rows), 0.0
    if (cached := plan.distillation.cached) and not all(one.fits for one in caches):
        caching = plan.distillation.model_copy(update={"caches": cached.model_copy(update={"disk": None})})
        other = foreseen(anatomy, plan.model_copy(update={"distillation": caching}), hardware, rows)
        more = sum(stage.seconds for stage in stages) - sum(stage.seconds for stage in other)
    return said_of(caches, plan, more)


def _advice(found: Foresight, anatomy: Anatomy, plan: Plan, rows: AllRows) -> str:
    """What to change of a plan that does not fit."""
    part, asked = found.worst.part, plan.distillation.micro_batch_size
    if part == "distill" and asked != "auto":
        most = most_rows(anatomy, plan, found.hardware, rows)
        if 0 < most < asked:
            return f"set distillation.micro_batch_size: {most}"
    if part == "distill" and found.hardware.count > 1 and plan.distillation.sharding == "none":
        return "set distillation.sharding: auto"
    if part == "importance" and plan.importance.accumulation == "dataset":
        return f"set importance.passes: {2 * plan.importance.passes}, or importance.accumulation: batch"
    if part == "importance" and plan.importance.batch_size > 1:
        return f"set importance.batch_size: {plan.importance.batch_size // 2}"
    if part == "evaluate" and plan.evaluation.batch_size > 1:
        return f"set evaluation.batch_size: {plan.evaluation.batch_size // 2}"
    larger = [card for card in map(_card, card_names()) if _fits(found.worst.memory, card)]
    if larger:
        return f"the smallest card that it fits on is {min(larger, key=lambda card: card.memory).name}"
    return "no known card is large enough: cut a smaller model"


def _fits(memory: int, hardware: Hardware) -> bool:
    """Whether there is room, beside what is gone before the first tensor: the share that `auto` lets a student take."""
    floor = CONTEXT if hardware.on_gpu else BASE
    return memory - floor <= ROOM * (hardware.memory - floor)


def _card(name: str) -> Hardware:
    return hardware_of(name, 1)
