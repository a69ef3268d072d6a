"""Compresses large multimodal models in stages: prune a little, distil, measure, keep what stays within alpha."""

import os
import sys

# the command, or `python -m lmmpress.cli`, which is called so until it has been found: before anything is imported
if [os.path.basename(name) for name in sys.argv[:1]] in (["lmmpress"], ["-m"]):
    from lmmpress.host.safe_path import forget_current_directory

    forget_current_directory()

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmmpress.api import (
        advise,
        as_plan,
        compare,
        compress,
        evaluate,
        inspect,
        inspect_data,
        lineage,
        locate,
        name_of_compressed,
        open_checkpoint,
        plan_sizes,
        predict,
        prune,
        report,
    )
    from lmmpress.data.description import Description
    from lmmpress.engine.advised import Advice
    from lmmpress.errors import UserError
    from lmmpress.evaluation.answers import Answer, Answers
    from lmmpress.evaluation.comparison import Comparison
    from lmmpress.evaluation.evaluate_checkpoint import Measurement
    from lmmpress.lmm.inspection import Inspection
    from lmmpress.plan import Plan
    from lmmpress.progress import Said, Work
    from lmmpress.progress.terminal import on_terminal
    from lmmpress.pruning.planned import Sizes
    from lmmpress.pruning.prune_checkpoint import Pruned
    from lmmpress.result import Recorder, Result, StepResult
    from lmmpress.tracking.lineage import Lineage

__version__ = "0.1.0"
__all__ = [
    "Advice",
    "Answer",
    "Answers",
    "Comparison",
    "Description",
    "Inspection",
    "Lineage",
    "Measurement",
    "Plan",
    "Pruned",
    "Recorder",
    "Result",
    "Said",
    "Sizes",
    "StepResult",
    "UserError",
    "Work",
    "advise",
    "as_plan",
    "compare",
    "compress",
    "evaluate",
    "inspect",
    "inspect_data",
    "lineage",
    "locate",
    "name_of_compressed",
    "on_terminal",
    "open_checkpoint",
    "plan_sizes",
    "predict",
    "prune",
    "report",
]

_MODULES = {
    "Advice": "lmmpress.engine.advised",
    "Answer": "lmmpress.evaluation.answers",
    "Answers": "lmmpress.evaluation.answers",
    "Comparison": "lmmpress.evaluation.comparison",
    "Description": "lmmpress.data.description",
    "Inspection": "lmmpress.lmm.inspection",
    "Lineage": "lmmpress.tracking.lineage",
    "Measurement": "lmmpress.evaluation.evaluate_checkpoint",
    "Plan": "lmmpress.plan",
    "Pruned": "lmmpress.pruning.prune_checkpoint",
    "Recorder": "lmmpress.result",
    "Result": "lmmpress.result",
    "Said": "lmmpress.progress",
    "Sizes": "lmmpress.pruning.planned",
    "StepResult": "lmmpress.result",
    "UserError": "lmmpress.errors",
    "Work": "lmmpress.progress",
    "on_terminal": "lmmpress.progress.terminal",
}
"""Where names are that are not in `lmmpress.api`. Each is imported when it is first used: torch takes seconds."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lmmpress' has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "lmmpress.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
