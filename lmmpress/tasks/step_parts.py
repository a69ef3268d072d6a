"""The tasks that compute the parts of one step: importance, prune, distill, and evaluate in measuring.py."""

from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.outcome import Outcome, by, memory, table
from lmmpress.tasks.session import working


@for_people
def importance(store: str, run: str, stage: str, index: int) -> Outcome:
    """Score the checkpoint that a step cuts."""
    with working(store, run, "importance", step=(stage, index)) as session:
        step = session.step(stage, index)
        session.catch_up()
        made = step.importances
        scored, seconds = (made.scored, made.seconds) if made else (None, 0.0)
        rows = []
        for group, scores in sorted(scored.scores.items() if scored else ()):
            low, middle, high = (float(scores.double().quantile(share)) for share in (0, 0.5, 1))
            rows.append([group, len(scores), f"{low:.3g}", f"{middle:.3g}", f"{high:.3g}"])
        address = step.materials.store.address(step.planned.parent)
        reliability = scored.reliability if scored else None
        summary = table(["group", "dimensions", "least", "median", "most"], rows)
        peak = memory(made.record.machine) if made else {}
        metrics = {"seconds": seconds, "score_reliability": reliability} | peak
        return session.with_link(Outcome(address, summary, metrics))


@for_people
def prune(store: str, run: str, stage: str, index: int) -> Outcome:
    """Apply the cut of a step, by scores that are in the store."""
    from lmmpress.lmm.anatomy import count_by_tower

    with working(store, run, "prune", step=(stage, index)) as session:
        step = session.step(stage, index)
        pruned = step.pruned
        both = (step.planned.parent, pruned.checkpoint)
        before, after = (count_by_tower(step.materials.anatomy_of(one)) for one in both)
        rows = [[tower, before[tower], after[tower]] for tower in after]
        summary = f"{stage} of the {step.tower} tower, -{step.planned.removed}\n\n"
        summary += table(["parameters", "before", "after"], rows)
        metrics = {"seconds": pruned.seconds, "parameters": sum(after.values())} | by("parameters", after)
        address = step.materials.store.address(pruned.checkpoint)
        facts = {"parent": step.planned.parent}
        return session.with_link(Outcome(address, summary, metrics | memory(pruned.record.machine), facts))


@for_people
def distill(store: str, run: str, stage: str, index: int) -> Outcome:
    """Distil the teacher into the model that a step has cut, in one process for each GPU of this machine, or of all
    nodes that the cluster profile gives to distillation."""
    with working(store, run, "distill", step=(stage, index)) as session:
        step = session.step(stage, index)
        session.catch_up()
        distilled, pruned = step.distilled, step.pruned.checkpoint
        rows = [[epoch, f"{value:.4f}"] for epoch, value in enumerate(distilled.loss, start=1)]
        summary = "The loss is not finite: the step is rolled back."
        if distilled.checkpoint:
            summary = table(["epoch", "loss"], rows)
        metrics = {"seconds": distilled.seconds, "loss": distilled.loss[-1] if distilled.loss else None}
        left = step.materials.store.address(distilled.checkpoint or pruned)
        peak = memory(distilled.record.machine) if distilled.record else {}
        return session.with_link(Outcome(left, summary, metrics | peak, {"parent": pruned}))
