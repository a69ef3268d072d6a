"""Every task of a pipeline by its name, so that tests call them alike, and may replace one."""

from lmmpress.tasks.comparing import compare
from lmmpress.tasks.due_steps import due, steps
from lmmpress.tasks.gating import gate
from lmmpress.tasks.measuring import evaluate
from lmmpress.tasks.outcome import Outcome
from lmmpress.tasks.preparation import prepare
from lmmpress.tasks.publication import publish
from lmmpress.tasks.step_parts import distill, importance, prune
from lmmpress.tasks.whole_stage import compress_stage

__all__ = [
    "Outcome",
    "compare",
    "compress_stage",
    "distill",
    "due",
    "evaluate",
    "gate",
    "importance",
    "prepare",
    "prune",
    "publish",
    "steps",
]
