"""`prepare` as pipelines call it that were compiled before stages could be a list: with two parameters and one output
for each of four axes, which were all that there were."""

from dataclasses import dataclass
from typing import Any

from lmmpress.tasks import preparation
from lmmpress.tasks.due_steps import steps
from lmmpress.tasks.outcome import Outcome
from lmmpress.tasks.parameters import AMOUNTS, amounts_text

AXES = ("block", "ffn", "attention", "io")
"""In the order of the outputs."""


@dataclass(frozen=True)
class Prepared:
    """`outputs` are the submission's name, and the numbers of each axis' steps; none where there is no such stage."""

    outputs: tuple[str, list[int], list[int], list[int], list[int]]
    outcome: Outcome


def prepare(name: str, stages: list[str], **parameters: Any) -> Prepared:
    """What is asked is noted in the store; `stages` are axes in their order, with `<axis>_step` and `<axis>_max`."""
    given = {f"{axis}_{key}": parameters.pop(f"{axis}_{key}", 0) for axis in AXES for key in AMOUNTS}
    compiled = [{"axis": axis} | {key: given[f"{axis}_{key}"] for key in AMOUNTS} for axis in stages]
    made = preparation.prepare(name, compiled=compiled, amounts=amounts_text(given), stages=[], **parameters)
    store = str(parameters["store"])
    block, ffn, attention, io = (steps(store, made.run, axis) if axis in stages else [] for axis in AXES)
    return Prepared((made.run, block, ffn, attention, io), made.outcome)
