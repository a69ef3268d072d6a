"""What each task of a pipeline does: one function for each, with strings and numbers for arguments.

Tasks run on different machines and share nothing but the store. `prepare` notes there what was asked, and gives it a
name; every other task is told that name, finds where the run stands, does its part of the step that is due, and tells
what it did. A task that runs again finds its part done.
"""

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pydantic import BaseModel, ValidationError

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.history import read_history
from lmmpress.errors import UserError, traceback_of
from lmmpress.host.full_disk import system_says
from lmmpress.plan import Plan
from lmmpress.printing.visible import visible
from lmmpress.progress import listening, note, say
from lmmpress.progress.terminal import on_terminal
from lmmpress.result import StepResult
from lmmpress.store import Store, open_store
from lmmpress.store.records import SUBMISSION
from lmmpress.tasks.outcome import Outcome, accuracy_text, address_left, by, of_result, of_step, table
from lmmpress.tasks.parameters import plan_of, steps_of

if TYPE_CHECKING:  # torch takes seconds to import, and a task that only reads the state never needs it
    from lmmpress.engine.part_names import Part
    from lmmpress.engine.run import Run
    from lmmpress.engine.step import Step
    from lmmpress.store.state import RunState
    from lmmpress.tracking.lineage import Lineage

P = ParamSpec("P")
T = TypeVar("T")


class Submission(BaseModel):
    """What one submitted pipeline works for; noted in the store under the submission's name."""

    plan: Plan
    name: str
    key: str
    original: str


@dataclass(frozen=True)
class Prepared:
    """What `prepare` gives to the other tasks: the submission's name, and the numbers of each stage's steps."""

    outputs: tuple[str, list[int], list[int], list[int], list[int]]
    outcome: Outcome


def _for_people(task: Callable[P, T]) -> Callable[P, T]:
    """Show on stderr what a task says. End it with a line for each fault and exit code 2 where the fault is the user's,
    or the world's; with a traceback, less what is secret, and exit code 1 where it is ours."""

    @wraps(task)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with listening(on_terminal()):
                return task(*args, **kwargs)
        except UserError as error:
            for line in error.lines:
                print(f"error: {line}", file=sys.stderr)
            note(error="; ".join(error.lines))
            sys.exit(2)
        except OSError as error:
            line = visible(system_says(error, "run the pipeline again: it carries on"))
            print(f"error: {line}", file=sys.stderr)
            note(error=line)
            sys.exit(2)
        except Exception as error:
            print(traceback_of(error), file=sys.stderr)
            note(error=f"{type(error).__name__}: {error}")
            sys.exit(1)

    return run


@_for_people
def prepare(name: str, **parameters: Any) -> Prepared:
    """Check what is asked of a pipeline, take the teacher into the store and note what is to be done.

    The parameters are those of `lmmpress.tasks.parameters`.
    """
    from lmmpress.engine.row_checks import check_all_rows
    from lmmpress.engine.run import begin, check
    from lmmpress.tracking.registry import located

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        say("MLFLOW_TRACKING_URI is not set: no lineage is recorded")
    plan = plan_of(**parameters)
    if not plan.store:
        raise UserError("store is not set: the tasks of a pipeline exchange checkpoints through it")
    store = open_store(plan.store)
    plan = plan.model_copy(update={"model": located(plan.model)})
    checked_plan = check(plan)
    teacher, sizes = checked_plan.teacher, checked_plan.sizes
    if checked := check_all_rows(plan, teacher, store):
        checked.note(store)
    begun = begin(plan, store, teacher)
    key, original = begun.key, begun.original
    run = f"{key[:12]}-{uuid.uuid4().hex[:8]}"
    with store.run_state(key, holder=run):
        submission = Submission(plan=plan, name=name, key=key, original=original)
        # as text: records are written in the order of their keys, and a plan's stages have an order of their own
        store.write_record(_record(run), {"submission": submission.model_dump_json()})
    counts = [sum(size.parameters_by_tower.values()) for size in sizes]
    rows = [[size.stage, size.tower, size.removed, count] for size, count in zip(sizes, counts, strict=True)]
    outcome = Outcome(
        store.address(original),
        table(["stage", "tower", "removes", "parameters"], rows),
        {"parameters": counts[0], "parameters_planned": counts[-1]},
        {"run_key": key},
    )
    steps = steps_of(plan)
    return Prepared((run, steps["block"], steps["ffn"], steps["attention"], steps["io"]), outcome)


@_for_people
def due(store: str, run: str, stage: str, index: int) -> str:
    """Whether a step is the one to be made now: `open`, or `closed` where it is done or its stage has ended."""
    opened = open_store(store)
    told = _submission(opened, run)
    known = read_history(opened, told.plan, told.original, opened.history(told.key))
    planned = next_step(told.plan, told.original, known)
    is_next = isinstance(planned, Planned) and (planned.stage.name, planned.index) == (stage, int(index))
    return "open" if is_next else "closed"


@_for_people
def importance(store: str, run: str, stage: str, index: int) -> Outcome:
    """Score the checkpoint that a step cuts."""
    with _step(store, run, stage, index, "importance") as (_, step):
        made = step.importances
        scored, seconds = (made.scored, made.seconds) if made else (None, 0.0)
        rows = []
        for group, scores in sorted(scored.scores.items() if scored else ()):
            low, middle, high = (float(scores.double().quantile(share)) for share in (0, 0.5, 1))
            rows.append([group, len(scores), f"{low:.3g}", f"{middle:.3g}", f"{high:.3g}"])
        address = step.materials.store.address(step.planned.parent)
        reliability = scored.reliability if scored else None
        summary = table(["group", "dimensions", "least", "median", "most"], rows)
    return Outcome(address, summary, {"seconds": seconds, "score_reliability": reliability})


@_for_people
def prune(store: str, run: str, stage: str, index: int) -> Outcome:
    """Cut what a step removes, by scores that are in the store."""
    from lmmpress.lmm.anatomy import count_by_tower

    with _step(store, run, stage, index, "prune") as (_, step):
        pruned = step.pruned
        both = (step.planned.parent, pruned.checkpoint)
        before, after = (count_by_tower(step.materials.anatomy_of(one)) for one in both)
        rows = [[tower, before[tower], after[tower]] for tower in after]
        summary = f"{stage} of the {step.tower} tower, -{step.planned.amount}\n\n"
        summary += table(["parameters", "before", "after"], rows)
        metrics = {"seconds": pruned.seconds, "parameters": sum(after.values())} | by("parameters", after)
        address = step.materials.store.address(pruned.checkpoint)
        return Outcome(address, summary, metrics, {"parent": step.planned.parent})


@_for_people
def distill(store: str, run: str, stage: str, index: int) -> Outcome:
    """Let what a step has cut learn from the teacher, in one process for each GPU of this machine."""
    with _step(store, run, stage, index, "distill") as (_, step):
        distilled, pruned = step.distilled, step.pruned.checkpoint
        rows = [[epoch, f"{value:.4f}"] for epoch, value in enumerate(distilled.loss, start=1)]
        summary = "The loss is not finite: the step is rolled back."
        if distilled.checkpoint:
            summary = table(["epoch", "loss"], rows)
        metrics = {"seconds": distilled.seconds, "loss": distilled.loss[-1] if distilled.loss else None}
        left = step.materials.store.address(distilled.checkpoint or pruned)
        return Outcome(left, summary, metrics, {"parent": pruned})


@_for_people
def evaluate(store: str, run: str, stage: str, index: int = 0) -> Outcome:
    """Measure what a step has made; or, where `stage` says so, the `original` before all steps or the `result` after
    them."""
    from lmmpress.engine.closing import close
    from lmmpress.engine.run import known_steps

    if stage == "original":
        return _evaluate_original(store, run)
    if stage == "result":
        with _working(store, run, "evaluate", "speed") as (opened, state, _):
            return of_result(close(opened, known_steps(opened, state)))
    with _step(store, run, stage, index, "evaluate") as (_, step):
        before, answers = step.answers_pruned.accuracy, step.answers
        after = answers.accuracy if answers else None
        seconds = step.answers_pruned.seconds + (answers.seconds if answers else 0.0)
        summary = table(["", "accuracy"], [["pruned", f"{before:.4f}"], ["distilled", accuracy_text(after)]])
        metrics = {"seconds": seconds, "accuracy_pruned": before, "accuracy": after}
        left = step.distilled.checkpoint or step.pruned.checkpoint
        return Outcome(step.materials.store.address(left), summary, metrics)


@_for_people
def gate(store: str, run: str, stage: str, index: int) -> Outcome:
    """Decide a step whose parts are in the store, and record it."""
    from lmmpress.engine.run import known_steps, make_step

    with _working(store, run) as (opened, state, recorder):
        known = known_steps(opened, state)
        number, planned = _position(opened, known, stage, int(index))
        if number == len(known):
            known.append(make_step(opened, state, known, planned))
        _record_steps(opened, recorder, known)
        return of_step(opened.store, known[number])


@_for_people
def compress_stage(store: str, run: str, stage: str) -> Outcome:
    """All steps of a stage that are not made yet, if it is its turn; after the last stage the closing measurements."""
    from lmmpress.engine.closing import measure_ends
    from lmmpress.engine.run import check_original, describe, make_steps

    parts: tuple[Part, ...] = ("sight", "importance", "prune", "distill", "evaluate", "speed")
    with _working(store, run, *parts) as (opened, state, recorder):
        check_original(opened)
        told = describe(opened)
        if recorder:
            recorder.begin(told)
        known = make_steps(opened, state, recorder.step if recorder else lambda step: None, stage)
        own = [step for step in known if step.stage == stage]
        if not own:
            raise UserError(f"stage {stage} cannot begin: a stage before it has not ended")
        if not isinstance(next_step(opened.plan, opened.original, known), Planned):
            measure_ends(opened, known)
        rows = [[step.index + 1, step.decision, step.parameters, accuracy_text(step.accuracy)] for step in own]
        summary = table(["step", "decision", "parameters", "accuracy"], rows)
        return Outcome(address_left(opened.store, own[-1]), summary, of_step(opened.store, own[-1]).metrics)


@_for_people
def publish(store: str, run: str, report: str) -> Outcome:
    """Check that plain transformers loads what is left, register it, and write the report to the path `report`."""
    from lmmpress.engine.closing import close
    from lmmpress.engine.parts.load import load_as_users_do
    from lmmpress.engine.run import known_steps
    from lmmpress.reporting import write_report

    with _working(store, run, "load") as (opened, state, recorder):
        known = known_steps(opened, state)
        result = close(opened, known)
        load_as_users_do(opened.materials, result.compressed.checkpoint)
        Path(report).parent.mkdir(parents=True, exist_ok=True)
        write_report(result, opened.plan, Path(report))
        _record_steps(opened, recorder, known)
        if recorder:
            recorder.end(result, None)
        state.release()
        return of_result(result)


@contextmanager
def _working(store: str, run: str, *makes: "Part") -> "Iterator[tuple[Run, RunState, Lineage | None]]":
    """The run of a submission, its state held for the submission, and who records it, if somebody does."""
    from lmmpress.engine.run import open_run

    opened = open_store(store)
    told = _submission(opened, run)
    with opened.run_state(told.key, holder=run) as state:
        parts = frozenset(makes)
        settles, every_gpu = "evaluate" in parts, "distill" in parts
        made = open_run(told.plan, opened, told.key, told.original, parts, settles, every_gpu)
        recorder = _recorder(told.name, run)
        if recorder and recorder.within:
            with suppress(UserError):  # lineage is told by other tasks, and they say what is wrong with it
                recorder.take_over(told.key)
        try:
            yield made, state, recorder
        except BaseException:
            if recorder:
                recorder.failed(told.key)
            raise


@contextmanager
def _step(store: str, run: str, stage: str, index: int, part: "Part") -> "Iterator[tuple[Run, Step]]":
    """The step of that number, of which this task makes one part."""
    from lmmpress.engine.run import known_steps
    from lmmpress.engine.step import Step

    with _working(store, run, part) as (opened, state, _):
        _, planned = _position(opened, known_steps(opened, state), stage, int(index))
        yield opened, Step(opened.materials, planned)


def _position(run: "Run", known: list[StepResult], stage: str, index: int) -> tuple[int, Planned]:
    """A step that is known, or the one that comes next; UserError where it is neither."""
    for number in range(len(known) + 1):
        planned = next_step(run.plan, run.original, known[:number])
        if isinstance(planned, Planned) and (planned.stage.name, planned.index) == (stage, index):
            return number, planned
    raise UserError(f"step {index + 1} of stage {stage} is not due: {len(known)} steps of this run are decided")


def _submission(store: Store, run: str) -> Submission:
    try:
        return Submission.model_validate_json((store.read_record(_record(run)) or {}).get("submission", ""))
    except ValidationError:
        raise UserError(f"{store.root_address}: there is no submission {run}, or a newer lmmpress made it") from None


def _record(run: str) -> str:
    return f"{SUBMISSION}{run}"


def _recorder(name: str, run: str) -> "Lineage | None":
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return None
    from lmmpress.tracking.lineage import Lineage

    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "lmmpress")
    return Lineage(uri, name, experiment, within=os.environ.get("MLFLOW_RUN_ID"), holder=run)


def _record_steps(run: "Run", recorder: "Lineage | None", known: list[StepResult]) -> None:
    """Tell lineage of all steps: one whose task was killed after it had decided is recorded by the next."""
    from lmmpress.engine.run import describe

    if recorder:
        recorder.begin(describe(run))
        for step in known:
            recorder.step(step)


def _evaluate_original(store: str, run: str) -> Outcome:
    from lmmpress.engine.run import check_original, describe

    with _working(store, run, "sight", "evaluate") as (opened, _, recorder):
        check_original(opened)
        told = describe(opened)
        if recorder:
            recorder.begin(told)
        rows: list[list[Any]] = [
            ["accuracy", f"{told.gate_accuracy:.4f}"],
            *([split.role, split.rows] for split in told.data),
        ]
        metrics = {"accuracy": told.gate_accuracy, "parameters": sum(told.parameters_by_tower.values())}
        facts = {"run_key": opened.key}
        return Outcome(told.teacher_address, table(["original", ""], rows), metrics, facts)
