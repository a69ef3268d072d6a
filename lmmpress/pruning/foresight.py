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
from lmmpress.pruning.cache_sizes import FEATURES, STATES, Cache, caches_of
from lmmpress.pruning.economy import ROOM, Trainings, Way, can_fit, choose, fits
from lmmpress.pruning.hardware import Hardware
from lmmpress.pruning.memory import BASE, CONTEXT, Training, training_bytes
from lmmpress.pruning.row_shapes import AllRows
from lmmpress.pruning.sizes import Size, StepSize, frozen_side, outside_and_block, predict_memory, sizes_of
from lmmpress.pruning.work import AtHand, Learned, Looked, Passed, Portion, Pupil, learned, looked, passed
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


@dataclass(frozen=True)
class Trained:
    """How a step's student learns: in which way it goes into the memory, the bytes that this takes, the portions of its
    updates, and what these take."""

    way: Way
    memory: int
    portion: Portion
    learned: Learned


def foreseen(anatomy: Anatomy, plan: Plan, hardware: Hardware, rows: AllRows) -> tuple[Foreseen, ...]:
    """What every stage of a plan in whole numbers takes, with what comes before and after them."""
    return tuple(_Foresight(anatomy, plan, hardware, rows).all())


def caches_foreseen(anatomy: Anatomy, plan: Plan, hardware: Hardware, rows: AllRows) -> tuple[Cache, ...]:
    """The caches of a plan, and which of them its budget has room for."""
    return _Foresight(anatomy, plan, hardware, rows).caches


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
    def caches(self) -> tuple[Cache, ...]:
        """What a run keeps of the teacher's work."""
        pictures = self.sees_once and any(one.pictures for one in self.rows.values())
        of_token = self._head_width * self._width if self._learns else 0
        return caches_of(self.plan, self.rows, self._looked.features if pictures else 0, of_token, self._width)

    def _keeps(self, what: str, role: Role) -> bool:
        """Whether a run keeps something of a role's rows. Rows without pictures have no features to compute."""
        own = (one.fits for one in self.caches if (one.what, one.role) == (what, role))
        return bool(self.plan.distillation.caches) and all(own)

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
        measured, flops, seconds = self._measured(self.anatomy, "gate"), 0.0, 0.0
        stored = self._bytes(self.anatomy) + sum(one.size for one in self.caches if one.fits)
        memory = measured.memory
        kept = [role for role in self.rows if self._keeps(FEATURES, role)]
        if self.sees_once and (pictures := sum(self.rows[role].pictures for role in kept)):
            seen = self._looked
            flops += seen.taken.flops * pictures / _AT_ONCE
            seconds += self.hardware.seconds(seen.taken, self.half) * pictures / _AT_ONCE
            memory = max(memory, self._held(seen.taken))
        if self._learns and self._keeps(STATES, "distill"):
            rows = self.rows["distill"]
            teacher = self._passed(self.anatomy, rows.portion(_AT_ONCE), "distill", learns=False)
            share = rows.rows / rows.portion(_AT_ONCE).rows * rows.filled
            flops += teacher.forward.flops * share
            seconds += self.hardware.seconds(teacher.forward, self.half) * share
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
        found = self._passed(parent, portion, "score")
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
        found = self._trained_with(at)
        updates = epochs * ceil(rows.rows / settings.batch_size)
        share = epochs * rows.rows / found.portion.rows * rows.filled
        extra = 1 + _TRIALS if settings.learning_rate == "auto" else 1.0
        learning = self.hardware.seconds(found.learned.portion, self.half) * share / self.hardware.count
        updating = self.hardware.seconds(found.learned.update, False) * updates
        return Cost(
            extra * share * found.learned.portion.flops,
            extra * (learning + updating),
            self.floor + found.memory,
            str(found.way) if found.way.saves else "",
        )

    def _trained_with(self, at: int) -> Trained:
        """As a run chooses it: with the rows and the economy that fit, and shares where nothing else does."""
        settings, most = self.plan.distillation, self.plan.distillation.rows_at_once
        way, budget = Way(settings.economy(), most, most), self.hardware.memory - self.floor
        usual = self._learned(at, way.economy, most)
        if not fits(self._training(at, way.economy, usual), way.economy, budget):
            way = choose(self._trainings(at), settings, budget, most)
        found = self._learned(at, way.economy, way.rows)
        memory = training_bytes(self._training(at, way.economy, found), way.economy)
        return Trained(way, memory, self._portion(way.rows), found)

    def _trainings(self, at: int) -> Trainings:
        """What decides how much memory a step's training takes with so many rows at once: a share of what it keeps with
        the most, as it is and with blocks that are computed again."""
        settings, most = self.plan.distillation, self.plan.distillation.rows_at_once
        usual, anew = (
            self._training(at, economy, self._learned(at, economy, most))
            for economy in (settings.economy(Economy(recompute=again)) for again in (False, True))
        )

        def of(rows: int) -> Training:
            share = self._portion(rows).rows / self._portion(most).rows
            return replace(usual, kept=int(share * usual.kept), kept_anew=int(share * anew.kept))

        return of

    def _learned(self, at: int, economy: Economy, rows: int) -> Learned:
        """What an update of a step takes, computed once."""
        key = (at, economy.model_copy(update={"why": ""}), rows)
        if key not in self._known:
            at_hand = AtHand(self._keeps(FEATURES, "distill"), self._keeps(STATES, "distill"))
            settings = self.plan.distillation.model_copy(update={"micro_batch_size": rows})
            pupil = replace(self._pupil(at), economy=economy)
            self._known[key] = learned(pupil, self._portion(rows), settings, at_hand)
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[int, Economy, int], Learned]:
        return {}

    def _training(self, at: int, economy: Economy, found: Learned) -> Training:
        """What decides how much memory a training takes: all that it was found to hold beyond weights, gradients and
        averages is kept for its backward pass."""
        student = self.steps[at].anatomy
        outside, block = outside_and_block(student)
        bare = Training(
            student.parameters, self._trained(at), self._width, found.beside, outside=outside, block=block
        )  # fmt: skip
        kept = self._loose(max(0, found.peak - training_bytes(bare, economy)))
        return replace(bare, kept=kept, kept_anew=kept, shares=self._shares(bare))

    def _shares(self, bare: Training) -> int:
        """Into how many shares the cards divide a student, of which no rows are known."""
        settings, count = self.plan.distillation, self.hardware.count
        if settings.sharding == "auto":
            return 1 if can_fit(bare, settings, self.hardware.memory) else count
        return count if settings.sharding == "full" else 1

    def most_rows(self) -> int:
        """By a portion of half as many rows: later ones of an update find the gradients of earlier ones."""
        most = self._portion(self.plan.distillation.rows_at_once).rows
        if not self._learns or len(self.steps) < 2:
            return most
        rows, economy = max(1, most // 2), self._trained_with(1).way.economy
        training = self._training(1, economy, self._learned(1, economy, rows))
        bare = training_bytes(replace(training, kept=0, kept_anew=0), economy)
        left = ROOM * (self.hardware.memory - self.floor) - bare
        return max(0, int(left * rows / max(1, training.kept)))

    def _portion(self, rows: int) -> Portion:
        own = ceil(self.plan.distillation.batch_size / self.hardware.count)
        return self.rows["distill"].portion(min(rows, own))

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
        found = self._passed(anatomy, portion, role, learns=False).forward
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

    def _passed(self, anatomy: Anatomy, portion: Portion, role: Role, learns: bool = True) -> Passed:
        return passed(anatomy, portion, self.half, self.sees_once and self._keeps(FEATURES, role), learns)

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
