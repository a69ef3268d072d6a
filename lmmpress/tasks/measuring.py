"""Task `evaluate`: measures the original before all steps, a step's model, or the result after all steps."""

from typing import Any

from lmmpress.result import metric_title
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.outcome import Outcome, accuracy_text, memory, of_result, table
from lmmpress.tasks.session import working


@for_people
def evaluate(store: str, run: str, stage: str, index: int = 0) -> Outcome:
    """Measure the model of a step; or the original or the result, if `stage` is `original` or `result`."""
    match stage:
        case "original":
            return _evaluate_original(store, run)
        case "result":
            return _evaluate_result(store, run)
        case _:
            return _evaluate_step(store, run, stage, index)


def _evaluate_original(store: str, run: str) -> Outcome:
    from lmmpress.engine.run import check_original, describe

    with working(store, run, "sight", "evaluate") as session:
        check_original(session.run)
        start = describe(session.run)
        session.begin_recording()
        rows: list[list[Any]] = [
            [metric_title(start.metrics), f"{start.gate_accuracy:.4f}"],
            *([split.role, split.rows] for split in start.data),
        ]
        metrics = {"accuracy": start.gate_accuracy, "parameters": sum(start.parameters_by_tower.values())}
        facts = {"run_key": session.run.key}
        return session.with_link(Outcome(start.teacher_address, table(["original", ""], rows), metrics, facts))


def _evaluate_result(store: str, run: str) -> Outcome:
    from lmmpress.engine.final_result import close

    with working(store, run, "evaluate", "speed") as session:
        session.catch_up()
        return session.with_link(of_result(close(session.run, session.known)))


def _evaluate_step(store: str, run: str, stage: str, index: int) -> Outcome:
    from lmmpress.engine.measured import note_measured

    with working(store, run, "evaluate", step=(stage, index)) as session:
        step = session.step(stage, index)
        session.catch_up()
        step.distilled  # noqa: B018 (a task out of order ends here, before anything is loaded)
        before, answers = step.answers_pruned.accuracy, step.answers
        after = answers.accuracy if answers else None
        note_measured(step.materials.store, session.run.key, step.planned, step.measured)
        seconds = step.answers_pruned.seconds + (answers.seconds if answers else 0.0)
        summary = table(
            ["", metric_title(step.measured.metrics)],
            [["pruned", f"{before:.4f}"], ["distilled", accuracy_text(after)]],
        )
        metrics = {"seconds": seconds, "accuracy_pruned": before, "accuracy": after}
        left = step.distilled.checkpoint or step.pruned.checkpoint
        record = (answers or step.answers_pruned).record
        address = step.materials.store.address(left)
        return session.with_link(Outcome(address, summary, metrics | memory(record.machine)))
