"""Task `evaluate`: measures the original before all steps, what a step has made, or the result after all steps."""

from typing import Any

from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.outcome import Outcome, accuracy_text, of_result, table
from lmmpress.tasks.session import working, working_on_step


@for_people
def evaluate(store: str, run: str, stage: str, index: int = 0) -> Outcome:
    """Measure what a step of a stage has made; or, where `stage` says so, the `original` or the `result`."""
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
        if session.recorder:
            session.recorder.begin(start)
        rows: list[list[Any]] = [
            ["accuracy", f"{start.gate_accuracy:.4f}"],
            *([split.role, split.rows] for split in start.data),
        ]
        metrics = {"accuracy": start.gate_accuracy, "parameters": sum(start.parameters_by_tower.values())}
        facts = {"run_key": session.run.key}
        return Outcome(start.teacher_address, table(["original", ""], rows), metrics, facts)


def _evaluate_result(store: str, run: str) -> Outcome:
    from lmmpress.engine.final_result import close
    from lmmpress.engine.run import known_steps

    with working(store, run, "evaluate", "speed") as session:
        return of_result(close(session.run, known_steps(session.run, session.state)))


def _evaluate_step(store: str, run: str, stage: str, index: int) -> Outcome:
    with working_on_step(store, run, stage, index, "evaluate") as step:
        before, answers = step.answers_pruned.accuracy, step.answers
        after = answers.accuracy if answers else None
        seconds = step.answers_pruned.seconds + (answers.seconds if answers else 0.0)
        summary = table(["", "accuracy"], [["pruned", f"{before:.4f}"], ["distilled", accuracy_text(after)]])
        metrics = {"seconds": seconds, "accuracy_pruned": before, "accuracy": after}
        left = step.distilled.checkpoint or step.pruned.checkpoint
        return Outcome(step.materials.store.address(left), summary, metrics)
