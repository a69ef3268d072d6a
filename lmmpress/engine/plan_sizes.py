"""What `lmmpress plan` shows: the sizes that a plan leads to, the memory that its parts need, and what it takes on some
hardware."""

from pathlib import Path

from lmmpress.lmm.read_anatomy import anatomy_of, read_config
from lmmpress.plan import Plan
from lmmpress.pruning.amounts import what_shares_became, with_numbers
from lmmpress.pruning.cache_sizes import note_of
from lmmpress.pruning.planned import Sizes
from lmmpress.pruning.sizes import predict, predict_memory


def sizes_of_plan(written: Plan, teacher: Path, hardware: str | None = None) -> Sizes:
    """The sizes after every step of a plan of a checkpoint, of which no weights are read; with `hardware` what each
    stage takes on it.

    Raises UserError if a step or a maximum is not legal for the model, if it cannot start from the run that it names,
    or if the hardware is unknown.
    """
    anatomy = anatomy_of(read_config(teacher))
    plan = with_numbers(written, anatomy)
    sizes = predict(anatomy, plan)
    start = ""
    if plan.start_from:  # the module imports torch and transformers' models, which sizes do not need
        from lmmpress.engine.warm import start_of

        start = start_of(plan, anatomy)
    shares = tuple(what_shares_became(written, plan))
    needs, caches = predict_memory(anatomy, plan, sizes), note_of(anatomy, plan)
    if hardware is None:
        return Sizes(tuple(sizes), needs, start, shares, caches)
    from lmmpress.engine.expected_rows import rows_or_assumed
    from lmmpress.pruning.foreseen import foresight
    from lmmpress.pruning.hardware import hardware_for

    there = hardware_for(hardware, anatomy)
    rows, assumed = rows_or_assumed(plan, anatomy, teacher)
    return Sizes(tuple(sizes), needs, start, shares, caches, foresight(anatomy, plan, there, rows, assumed))
