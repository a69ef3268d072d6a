"""Where the engine calls the functions that do the work of a step: a test patches them to count or forbid calls."""

WORK = (
    "lmmpress.engine.parts.training.distill",
    "lmmpress.engine.parts.scoring.score",
    "lmmpress.evaluation.scores.answered_right",
    "lmmpress.engine.parts.prune.apply_cuts",
)
