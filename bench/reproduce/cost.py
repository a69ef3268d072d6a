"""How much processor time an experiment is likely to take, to say how long a set takes before it begins."""

from functools import cache

from lmmpress.plan import parse_plan
from lmmpress.presets import preset
from reproduce.experiments import Experiment, Later, Wanted
from reproduce.form import KEPT, sizes_of

START = 25.0
"""Seconds of a process beside its steps: imports, reading rows and the teacher, the closing checks."""
STEP = 6.0
"""Seconds of a step beside its distillation: cutting, and the gate twice."""
ROW = 0.0017
"""Seconds of a row in an epoch, for what is not cut."""
ROW_OF_A_MILLION = 0.0042
"""Seconds of a row in an epoch, for each million parameters of the language tower."""
UNCACHED = 5.0
"""Times as long, where the image tower is cut and nothing of pictures is kept."""


def seconds_of(wanted: Wanted) -> float:
    """The processor time of one experiment. One that follows from others takes as long as the first of them; measuring
    checkpoints takes a few starts."""
    if isinstance(wanted, Later):
        (first, *others) = wanted.needs
        return seconds_of(first) if others else 4 * START
    return 4 * START if wanted.kind == "compared" or "fill" in wanted.script else _seconds(wanted)


@cache
def _seconds(experiment: Experiment) -> float:
    settings = tuple(one for one in experiment.settings if one != KEPT)
    plan = parse_plan(preset(experiment.preset, with_data=False), settings)
    sizes = sizes_of(experiment.preset, settings)[1:]
    learning = plan.distillation
    epochs = [learning.epochs] * len(sizes)
    epochs[-1] = learning.last_epochs or epochs[-1]
    each = UNCACHED if {"vision", "qformer"} & set(plan.towers_in_use()) else 1.0
    rows = learning.rows or 0
    return START + sum(
        STEP + many * rows * each * (ROW + ROW_OF_A_MILLION * size.parameters_by_tower["language"] / 1e6)
        for many, size in zip(epochs, sizes, strict=True)
    )
