"""The functions that do the work of a step, where the engine calls them: a test counts or forbids their calls."""

WORK = (
    "lmmpress.engine.parts.training.distill",
    "lmmpress.engine.parts.importance.score",
    "lmmpress.engine.parts.evaluate.answered_right",
    "lmmpress.engine.parts.prune.apply_cuts",
)
