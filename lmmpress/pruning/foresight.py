"""What a plan's run will take on some hardware: memory, FLOPs, time and bytes of every stage, from configs alone.

Of each stage the first step and the last are computed with shadows of their models, and those between lie on a line: a
step takes away as much as the one before. bench/foresight.py compares this with what updates take.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from math import ceil, prod

from lmmpress.axes import axis_named
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.shadow import Taken
from lmmpress.metrics.setting import ONLY_EXACT
from lmmpress.plan import Plan
from lmmpress.pruning.economy import ROOM, choose, fits
from lmmpress.pruning.hardware import Hardware
from lmmpress.pruning.memory import BASE, CONTEXT, Training, training_bytes
from lmmpress.pruning.row_shapes import AllRows
from lmmpress.pruning.sizes import Size, StepSize, frozen_side, predict_memory, sizes_of
from lmmpress.pruning.work import Learned, Looked, Passed, Portion, Pupil, learned, looked, passed
from lmmpress.result import Role
from lmmpress.settings.economy import Economy

HOLES = 1.8
"""A CPU's activations take so many times their bytes: the C library keeps what is let go of between tensors of other
sizes. 1.6 to 2.2 were measured."""
_TRIALS = 0.1
"""The share of a training that finding its learning rate may take in addition."""


@dataclass(frozen=True)
class Foreseen:
    """A stage of a run, or what comes `before` and `after` all of them: how many steps; the parameters that it leaves;
    the most memory of a card and the part that needs it; FLOPs; seconds; the bytes that the store takes in; and how its
    students save memory, as `auto` chooses."""

    name: str
    steps: int
    parameters: int
    memory: int
    part: str
    flops: float
    seconds: float
    stored: int
    chosen: str = ""


@dataclass(frozen=True)
class Cost:
    """What one part takes."""

    flops: float = 0.0
    seconds: float = 0.0
    memory: int = 0
    chosen: str = ""


def foreseen(anatomy: Anatomy, plan: Plan, hardware: Hardware, rows: AllRows) -> tuple[Foreseen, ...]:
    """What every stage of a plan in whole numbers takes, with what comes before and after them."""
    return tuple(_Foresight(anatomy, plan, hardware, rows).all())


def most_rows(anatomy: Anatomy, plan: Plan, hardware: Hardware, rows: AllRows) -> int:
    """How many rows of a portion fit while a student learns, in the first step; 0 if not even one does."""
    return _Foresight(anatomy, plan, hardware, rows).most_rows()


@dataclass(frozen=True)
class _Foresight:
    anatomy: Anatomy
    plan: Plan
    hardware: Hardware
    rows: AllRows

    @cached_property
    def half(self) -> bool:
        """Whether computation is in bfloat16."""
        by_itself = self.hardware.on_gpu and self.hardware.half is not None
        return {"auto": by_itself, "float32": False, "bfloat16": True}[self.plan.dtype]

    @cached_property
    def steps(self) -> list[StepSize]:
        return sizes_of(self.anatomy, self.plan)

    @cached_property
    def frozen(self) -> tuple[str, ...]:
        return frozen_side(self.plan, self.anatomy)

    @cached_property
    def sees_once(self) -> bool:
        return bool(self.plan.distillation.caches and self.frozen)

    @cached_property
    def floor(self) -> int:
        """The bytes that are gone before the first tensor."""
        return CONTEXT if self.hardware.on_gpu else BASE

    def all(self) -> Iterator[Foreseen]:
        yield self._before()
        own = self.steps[1:]
        for name, group in groupby(own, key=lambda step: step.size.stage):
            yield self._stage(name, list(group))
        yield self._after(self.steps[-1])

    def _before(self) -> Foreseen:
        """The original is measured, and what the teacher sees and says is kept once."""
        measured, flops, seconds, stored = self._measured(self.anatomy, "gate"), 0.0, 0.0, self._bytes(self.anatomy)
        memory = measured.memory
        if self.sees_once and (pictures := sum(one.pictures for one in self.rows.values())):
            seen = self._looked
            flops += seen.taken.flops * pictures / _AT_ONCE
            seconds += self.hardware.seconds(seen.taken, self.half) * pictures / _AT_ONCE
            stored += seen.features * pictures
            memory = max(memory, self._held(seen.taken))
        if self.plan.distillation.caches and self._learns:
            rows = self.rows["distill"]
            teacher = self._passed(self.anatomy, rows.portion(_AT_ONCE), learns=False)
            share = rows.rows / rows.portion(_AT_ONCE).rows * rows.filled
            flops += teacher.forward.flops * share
            seconds += self.hardware.seconds(teacher.forward, self.half) * share
            stored += round(rows.rows * rows.answers) * self._head_width * self._width
            memory = max(memory, self._held(teacher.forward))
        return Foreseen(
            "before", 0, self.anatomy.parameters, memory, "evaluate", measured.flops + flops,
            measured.seconds + seconds, stored,
        )  # fmt: skip

    def _stage(self, name: str, own: list[StepSize]) -> Foreseen:
        """The steps of a stage: the first and the last, and as many as there are of their mean."""
        place = self.steps.index(own[0])
        ends = [place, place + len(own) - 1] if len(own) > 1 else [place]
        costs = [self._step(at) for at in ends]
        mean = {part: [cost[part] for cost in costs] for part in costs[0]}
        flops, seconds = (
            len(own) * sum(getattr(one, key) for each in mean.values() for one in each) / len(ends)
            for key in ("flops", "seconds")
        )
        part, memory = max(
            ((part, max(one.memory for one in each)) for part, each in mean.items()), key=lambda found: found[1]
        )
        stored = len(own) * sum(self._step_bytes(at) for at in ends) // len(ends)
        chosen = next((one.chosen for one in mean["distill"] if one.chosen), "")
        return Foreseen(name, len(own), own[-1].anatomy.parameters, memory, part, flops, seconds, stored, chosen)

    def _step(self, at: int) -> dict[str, Cost]:
        """The parts of a step."""
        before, now = self.steps[at - 1], self.steps[at]
        found = {"distill": self._distilled(at), "evaluate": self._measured(now.anatomy, self.plan.tolerance.split)}
        if axis_named(now.axis).needs_scores:
            found["importance"] = self._scored(before.anatomy, now.size)
        return found

    def _scored(self, parent: Anatomy, size: Size) -> Cost:
        settings, rows = self.plan.importance, self.rows["score"]
        if settings.criterion not in ("taylor", "fisher"):
            return Cost()
        portion = rows.portion(1 if settings.accumulation == "sample" else settings.batch_size)
        found = self._passed(parent, portion)
        passes = settings.passes if settings.accumulation == "dataset" else 1
        share = passes * rows.rows / portion.rows * rows.filled
        own = {need.part: need for need in predict_memory(self.anatomy, self.plan, [self.steps[0].size, size])}
        least = own["importance"].gpu if self.hardware.on_gpu else own["importance"].process
        return Cost(
            share * found.both.flops,
            share * self.hardware.seconds(found.both, self.half),
            least + self._loose(found.forward.left - parent.parameters * self._width),
        )

    def _distilled(self, at: int) -> Cost:
        settings, rows = self.plan.distillation, self.rows["distill"]
        if not self._learns:
            return Cost()
        last = at == len(self.steps) - 1 and settings.last_epochs
        epochs = settings.last_epochs if last and settings.last_epochs else settings.epochs
        economy, memory, found = self._trained_with(at)
        updates = epochs * ceil(rows.rows / settings.batch_size)
        share = epochs * rows.rows / self._portion.rows * rows.filled
        extra = 1 + _TRIALS if settings.learning_rate == "auto" else 1.0
        learning = self.hardware.seconds(found.portion, self.half) * share / self.hardware.count
        updating = self.hardware.seconds(found.update, False) * updates
        chosen = str(economy) if economy.saves else ""
        return Cost(extra * share * found.portion.flops, extra * (learning + updating), self.floor + memory, chosen)

    def _trained_with(self, at: int) -> tuple[Economy, int, Learned]:
        """The economy of a step, as a run chooses it; the bytes that training then takes, and what an update does."""
        settings, pupil = self.plan.distillation, self._pupil(at)
        usual = replace(pupil, economy=settings.economy())
        found = learned(usual, self._portion, settings)
        training = self._training(usual, found)
        budget = self.hardware.memory - self.floor
        if fits(training, usual.economy, budget):
            return usual.economy, training_bytes(training, usual.economy), found
        anew = replace(pupil, economy=settings.economy(Economy(recompute=True)))
        saving = learned(anew, self._portion, settings)
        training = replace(training, kept_anew=self._training(anew, saving).kept_anew)
        economy = choose(training, settings, budget)
        chosen = saving if economy.recompute else found
        return economy, training_bytes(training, economy), chosen

    def _training(self, pupil: Pupil, found: Learned) -> Training:
        """What decides how much memory a training takes: all that it was found to hold beyond weights, gradients and
        averages is kept for its backward pass."""
        trained = [prod(shape) for name, shape in pupil.student.shapes.items() if pupil.trains(name)]
        bare = Training(pupil.student.parameters, sum(trained), self._width, self.hardware.count, found.beside)
        alone = replace(bare, processes=1)  # a shadow exchanges nothing with others
        kept = self._loose(max(0, found.peak - training_bytes(alone, pupil.economy)))
        return replace(bare, kept=kept, kept_anew=kept)

    def most_rows(self) -> int:
        """By a portion of half as many rows: later ones of an update find the gradients of earlier ones."""
        rows = max(1, self._portion.rows // 2)
        if not self._learns or len(self.steps) < 2:
            return self._portion.rows
        settings = self.plan.distillation.model_copy(update={"micro_batch_size": rows})
        pupil = replace(self._pupil(1), economy=self._trained_with(1)[0])
        found = learned(pupil, self.rows["distill"].portion(rows), settings)
        training = self._training(pupil, found)
        left = ROOM * (self.hardware.memory - self.floor) - training_bytes(
            replace(training, kept=0, kept_anew=0), pupil.economy
        )
        return max(0, int(left * rows / max(1, training.kept)))

    @cached_property
    def _portion(self) -> Portion:
        settings = self.plan.distillation
        own = ceil(settings.batch_size / self.hardware.count)
        return self.rows["distill"].portion(min(settings.rows_at_once, own))

    def _pupil(self, at: int) -> Pupil:
        """Under `image_side: features` a step trains the side that it cuts, and leaves the other."""
        tower, apart = self.steps[at].size.tower, self.plan.distillation.image_side == "features"
        alone = apart and tower in self.anatomy.image_towers
        frozen = self.anatomy.image_side if apart and not alone else self.frozen
        return Pupil(self.steps[at].anatomy, self.anatomy, frozen, self.half, alone)

    def _measured(self, anatomy: Anatomy, role: Role) -> Cost:
        """One pass over the rows of a role; where metrics read what the model writes, it writes an answer to each too.
        Each token of that reads all weights once for a batch."""
        rows, width = self.rows[role], self._width
        portion = rows.portion(self.plan.evaluation.batch_size)
        found = self._passed(anatomy, portion, learns=False).forward
        batches = rows.rows / portion.rows
        writing = 0.0
        if self.plan.metrics != ONLY_EXACT:
            writing = rows.answers * anatomy.parameters * width / self.hardware.traffic
        return Cost(
            batches * rows.filled * found.flops,
            batches * (rows.filled * self.hardware.seconds(found, self.half) + writing),
            self._held(found) + self.anatomy.parameters * width,  # the last measurement has two models at once
        )

    def _after(self, last: StepSize) -> Foreseen:
        """Original and result are measured on the test rows, and their speed is."""
        ends = [self._measured(anatomy, "test") for anatomy in (self.anatomy, last.anatomy)]
        speed = self.plan.evaluation.seconds if self.plan.evaluation.speed else 0.0
        return Foreseen(
            "after", 0, last.anatomy.parameters, max(one.memory for one in ends), "evaluate",
            sum(one.flops for one in ends), sum(one.seconds for one in ends) + speed, 0,
        )  # fmt: skip

    def _held(self, taken: Taken) -> int:
        return self.floor + taken.peak

    def _loose(self, size: int) -> int:
        """The bytes that tensors take that come and go."""
        return size if self.hardware.on_gpu else round(HOLES * size)

    def _passed(self, anatomy: Anatomy, portion: Portion, learns: bool = True) -> Passed:
        return passed(anatomy, portion, self.half, self.sees_once, learns)

    @cached_property
    def _looked(self) -> Looked:
        return looked(self.anatomy, _AT_ONCE, self.half)

    @property
    def _learns(self) -> bool:
        return bool(self.plan.distillation.epochs or self.plan.distillation.last_epochs)

    @property
    def _width(self) -> int:
        return 2 if self.half else 4

    @cached_property
    def _head_width(self) -> int:
        return max(shape[-1] for name, shape in self.anatomy.shapes.items() if name.startswith(self.anatomy.embeddings))

    def _trained(self, at: int) -> int:
        pupil = self._pupil(at)
        return sum(prod(shape) for name, shape in pupil.student.shapes.items() if pupil.trains(name))

    def _bytes(self, anatomy: Anatomy) -> int:
        return anatomy.parameters * self._stored_width

    @cached_property
    def _stored_width(self) -> int:
        """The bytes of a number in checkpoints, which keep the original's type."""
        named = self.anatomy.config.get("dtype") or "float32"
        return 2 if str(named).endswith("16") else 4

    def _step_bytes(self, at: int) -> int:
        """What a step adds to the store: the tensors that its cut has changed, and those that it has trained. A tensor
        that is the same as another lies there once."""
        before, now = self.steps[at - 1].anatomy, self.steps[at].anatomy
        known = set(before.shapes.values())
        cut = sum(prod(shape) for shape in now.shapes.values() if shape not in known)
        return self._stored_width * (cut + (self._trained(at) if self._learns else 0))


_AT_ONCE = 64
"""Rows, or images, that the teacher reads at a time."""


def in_hours(found: tuple[Foreseen, ...], hardware: Hardware) -> float:
    """The hours that all cards together are held."""
    return sum(one.seconds for one in found) * hardware.count / 3600


def utilisation(found: tuple[Foreseen, ...], hardware: Hardware) -> float:
    """The share of the maker's FLOPs that the whole of a run comes to, while the cards compute."""
    seconds = sum(one.seconds for one in found)
    return sum(one.flops for one in found) / (seconds * hardware.peak * hardware.count) if seconds else 0.0
