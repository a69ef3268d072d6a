"""The steps of a plan with one scoring a stage: its later steps go by what the first one's scores said of what is left.

    python -m reproduce.once PLAN.yaml [--set KEY=VALUE ...]

It prints the outcome as JSON. No setting of a plan does this, so the parts of a step are called here one by one; they
have the names that a run gives them, and those of the first step of each stage are shared with it.
"""

import argparse
from pathlib import Path

from lmmpress.axes import axis_named
from lmmpress.axes.cut import Cut
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.evaluate import evaluate
from lmmpress.engine.parts.importance import importance
from lmmpress.engine.parts.prune import prune
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.plan import Plan, read_plan
from lmmpress.pruning.amounts import with_numbers
from lmmpress.pruning.choose import choose
from lmmpress.pruning.importance import Scores
from lmmpress.store import open_store
from reproduce.outcome import Outcome, StepNote, processor_time_of


def arguments_of(description: str | None) -> Plan:
    """The plan that a script is called with."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    return read_plan(arguments.plan, tuple(arguments.overrides))


def steps_scored_once(plan: Plan) -> Outcome:
    """All steps of a plan, each kept."""
    assert plan.store, "the experiments share a store"
    store = open_store(plan.store)
    materials = Materials(plan, store, store.add_checkpoint(Path(plan.model)))
    materials.plan = plan = with_numbers(plan, materials.anatomy)
    current, steps = materials.original, []
    for stage in plan.stages:
        (tower,) = plan.stage_towers(stage)
        assert tower, "the tower has a name"
        reference, scores = evaluate(materials, current, "gate"), None
        for removed in stage.removals(tower):
            records = []
            if scores is None and axis_named(stage.axis).needs_scores:
                scored = importance(materials, current)
                scores, records = scored.scored.scores, [("importance", scored.record)]
            pruned = prune(materials, current, tower, stage.axis, removed, scores)
            if scores is not None:
                scores = of_what_stays(
                    scores, choose(materials.anatomy_of(current), tower, stage.axis, removed, scores)
                )
            distilled = distill(materials, pruned.checkpoint)
            assert distilled.checkpoint, "the loss stays finite"
            current = distilled.checkpoint
            records += [("prune", pruned.record), *([("distill", distilled.record)] if distilled.record else [])]
            counts = count_by_tower(materials.anatomy_of(current))
            steps.append(
                StepNote(
                    stage=stage.name,
                    decision="kept",
                    parameters=sum(counts.values()),
                    language=counts["language"],
                    before=evaluate(materials, pruned.checkpoint, "gate").accuracy,
                    after=evaluate(materials, current, "gate").accuracy,
                    reference=reference.accuracy,
                    checkpoint=current,
                    processor={part: processor_time_of(record.energy, record.seconds) for part, record in records},
                )
            )
    counts = count_by_tower(materials.anatomy)
    return Outcome(
        steps=tuple(steps),
        parameters=sum(counts.values()),
        language=counts["language"],
        rows=len(reference.values),
        original=materials.original,
    )


def of_what_stays(scores: Scores, cut: Cut) -> Scores:
    """The scores of the dimensions that a cut keeps, in the order that they have after it."""
    return {name: each[cut.keep[name]] if name in cut.keep else each for name, each in scores.items()}


if __name__ == "__main__":
    print(steps_scored_once(arguments_of(__doc__)).model_dump_json())
