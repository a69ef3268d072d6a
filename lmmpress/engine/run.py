"""Begins, opens and describes a run, and makes its steps: in a single process, or in the tasks of a pipeline."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel

from lmmpress.distillation.optimizers import check_installed
from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.decisions import decided_steps, enter, report_step
from lmmpress.engine.judging import check_judging
from lmmpress.engine.materials import Materials, automatic_dtype
from lmmpress.engine.meeting import Meeting
from lmmpress.engine.part_names import PARTS, Part
from lmmpress.engine.parts.evaluate import evaluate
from lmmpress.engine.parts.original import original_says, original_sees
from lmmpress.engine.remaining import outlook
from lmmpress.engine.row_checks import read_splits
from lmmpress.engine.run_splits import RunSplits, note_splits, noted_splits, splits_as_before, splits_of
from lmmpress.engine.step import Step
from lmmpress.errors import UserError
from lmmpress.evaluation.greedy import check_greedy
from lmmpress.evaluation.metrics_by_task import metric_infos
from lmmpress.lmm.anatomy import Anatomy, count_by_tower
from lmmpress.lmm.checkpoint import read_checkpoint
from lmmpress.lmm.compatibility import FITTED, was_blind
from lmmpress.lmm.processor import load_processor, tokenizer_of
from lmmpress.lmm.read_anatomy import read_config
from lmmpress.lmm.weights import check_finite
from lmmpress.plan import Plan, digest_of
from lmmpress.printing.visible import shortened
from lmmpress.progress import at_step, say, say_once
from lmmpress.pruning.amounts import what_shares_became, with_numbers
from lmmpress.pruning.sizes import Size, predict
from lmmpress.result import RunInfo, StepResult, metric_title
from lmmpress.store import Store, open_checkpoint
from lmmpress.store.address import lies_in
from lmmpress.store.records import DTYPE, RUN, RunNote
from lmmpress.store.run_state import RunState


@dataclass(frozen=True)
class Run:
    """A run. `plan` is the user's plan, `key` is the run key, `original` is the digest of the teacher."""

    plan: Plan
    key: str
    original: str
    materials: Materials

    @property
    def store(self) -> Store:
        return self.materials.store


@dataclass(frozen=True)
class CheckedPlan:
    """A plan with whole numbers, the teacher's directory and anatomy, and the model's size after every step."""

    plan: Plan
    teacher: Path
    anatomy: Anatomy
    sizes: list[Size]


def check(plan: Plan) -> CheckedPlan:
    """Check that plan, model and data fit together, and make whole numbers of the plan's shares. Raises UserError if
    they do not fit."""
    teacher = open_checkpoint(plan.model)
    anatomy, written = read_checkpoint(teacher), plan
    plan = with_numbers(written, anatomy)
    for line in what_shares_became(written, plan):
        say(line)
    sizes = predict(anatomy, plan)
    check_installed(plan.distillation.economy())
    check_finite(teacher)
    check_greedy(teacher, tokenizer_of(load_processor(teacher)))
    check_judging(plan, read_splits(plan))
    return CheckedPlan(plan, teacher, anatomy, sizes)


class RunIdentity(BaseModel):
    """What identifies a run beside its plan: the digests of the teacher and of the splits by role. `run_key` is the
    hash of these and the plan."""

    run_key: str
    teacher: str
    data: dict[str, str]


def identity_of(plan: Plan, teacher: Path, original: str, store: Store | None) -> RunIdentity:
    """The identity of the run of a plan with the teacher in this directory, whose digest is `original`. A run that an
    earlier version has begun in `store` keeps the identity that it got then."""
    return _identity(plan, teacher, original, _splits(plan, teacher, original, store))


def _splits(plan: Plan, teacher: Path, original: str, store: Store | None) -> RunSplits:
    """The splits of a run: with the digests of an earlier version, if that has begun the run in `store`."""
    before = splits_as_before(plan) if store else None
    if store and before:
        key = _identity(plan, teacher, original, before).run_key
        if store.read_record(f"{RUN}{key}") is not None:
            return before
    return splits_of(plan)


def _identity(plan: Plan, teacher: Path, original: str, splits: RunSplits) -> RunIdentity:
    data = {str(info.role): info.digest for info in splits.data}
    fitting = {"fitted": FITTED} if was_blind(teacher, read_config(teacher)) else {}
    key = digest_of({"teacher": original, "data": data, "plan": plan.key_settings()} | fitting)
    return RunIdentity(run_key=key, teacher=original, data=data)


@dataclass(frozen=True)
class Begun:
    """A run whose teacher is in the store: the run key, and the digest of the teacher."""

    key: str
    original: str


def begin(plan: Plan, store: Store, teacher: Path) -> Begun:
    """Add the teacher to the store, and write the records of the run and of its splits."""
    original = store.add_checkpoint(teacher)
    splits = _splits(plan, teacher, original, store)
    identity = _identity(plan, teacher, original, splits)
    note_splits(store, identity.run_key, splits)
    taken_in = not lies_in(plan.model, store.root_address)
    about = RunNote(teacher=original, data=sorted(set(identity.data.values())), taken_in=taken_in)
    store.write_record(f"{RUN}{identity.run_key}", about.model_dump())
    return Begun(identity.run_key, original)


def open_run(
    plan: Plan,
    store: Store,
    key: str,
    original: str,
    makes: frozenset[Part] = PARTS,
    settles: bool = True,
    every_gpu: bool = False,
    halvings: int = 0,
    meeting: Meeting | None = None,
) -> Run:
    """Open the run with this key. `makes` are the parts of steps that this process may compute.

    With `every_gpu`, distillation uses one process for each GPU of this machine if the plan has fewer processes; in a
    `meeting`, as many as all its machines have. The micro-batch is halved `halvings` times, to take less memory. Both
    change only rounding.

    The first process that computes for the run resolves `dtype: auto` and stores the dtype, so that a task without a
    GPU finds the parts that were made on a GPU. With `settles`, this process may resolve it.
    """
    user_plan = plan
    if plan.dtype == "auto":
        name = f"{DTYPE}{key}"
        record = store.read_record(name)
        if record is None and settles:
            record = store.write_record(name, {"dtype": str(automatic_dtype()).removeprefix("torch.")})
        if record is not None:
            plan = Plan.model_validate(plan.model_dump() | record)
    settings = plan.distillation
    processes = max(settings.processes, torch.cuda.device_count()) if every_gpu else settings.processes
    if meeting:
        processes = meeting.machines.count * meeting.machines.processes
    size = max(1, settings.rows_at_once >> halvings) if halvings else settings.micro_batch_size
    distillation = settings.model_copy(update={"processes": processes, "micro_batch_size": size})
    plan = plan.model_copy(update={"distillation": distillation})
    return Run(user_plan, key, original, Materials(plan, store, original, makes, noted_splits(store, key), meeting))


def check_original(run: Run) -> None:
    """Check before the first step that images reach the original, and that it answers some rows right.

    Raises UserError if other images do not change its logits. Raises UserError if it answers no row of the gate's split
    right, since the gate would then accept every step, unless the plan allows it. Stored measurements are reused.
    """
    split = run.materials.facts(run.plan.tolerance.split).split
    if not original_sees(run.materials):
        raise UserError(
            f"{run.plan.model}: no picture reaches the model: rows of split {split!r} get the same logits with other "
            "pictures; check that the processor's num_query_tokens (BLIP-2) or patch_size (LLaVA), and its image "
            "token, are those of config.json"
        )
    _check_worth(run)


def _check_worth(run: Run) -> None:
    """Raise UserError if every row of the gate's split is worth as little as its metric can say, and note tasks of
    which that is true."""
    role = run.plan.tolerance.split
    facts, values = run.materials.facts(role), evaluate(run.materials, run.original, role).values
    metrics = metric_infos(run.plan.metrics, facts.tasks)
    worthless = {
        task: metrics[task].title
        for task, rows in facts.rows_by_task().items()
        if bool((values[rows].astype(float) == metrics[task].scale.worst).all())
    }
    if run.plan.tolerance.allow_zero:
        return
    if len(worthless) < len(metrics):
        for task, metric in worthless.items():
            if metric != "exact":
                say_once(
                    f"{run.plan.model}: by {metric} no row of task {task!r} of split {facts.split!r} scores: "
                    "the original has nothing to lose there"
                )
        return
    answers = "; ".join(
        f"to {shortened(reply.row.question)} it answers {shortened(reply.text) if reply.text.strip() else 'nothing'}"
        f"{'' if reply.ended else ' without an end token'}, the right answer is {shortened(reply.row.answer)}"
        for reply in original_says(run.materials)
    )
    found = (
        f"answers none of the {len(values)} rows of split {facts.split!r} right"
        if set(worthless.values()) == {"exact"}
        else f"has the worst {metric_title(metrics)} on all {len(values)} rows of split {facts.split!r}"
    )
    raise UserError(
        f"{run.plan.model}: the original {found}, so the gate "
        f"would accept every step: {answers}; compress a model that was trained on such rows, or correct the rows (for "
        "a test on a random model set tolerance.allow_zero: true)"
    )


def describe(run: Run) -> RunInfo:
    """Describe the start of a run; measures the original if the store has no measurement."""
    answers = evaluate(run.materials, run.original, run.plan.tolerance.split)
    return RunInfo(
        run_key=run.key,
        plan=run.plan,
        teacher=run.original,
        teacher_address=run.store.address(run.original),
        parameters_by_tower=count_by_tower(run.materials.anatomy),
        data=(run.materials.splits or splits_of(run.plan)).data,
        gate_accuracy=answers.accuracy,
        metrics=metric_infos(run.plan.metrics, run.materials.facts(run.plan.tolerance.split).tasks),
    )


def known_steps(run: Run, state: RunState) -> list[StepResult]:
    """The steps decided so far."""
    return decided_steps(run.store, run.plan, run.original, state)


def make_steps(
    run: Run, state: RunState, tell: Callable[[StepResult], None], stage: str | None = None
) -> list[StepResult]:
    """Make all open steps and return all steps; with `stage`, only make the steps of that stage while it is its turn.

    `tell` is called with each step, known or new.
    """
    known = known_steps(run, state)
    for number, step in enumerate(known, start=1):
        report_step(step, number, run.plan)
        tell(step)
    while isinstance(planned := next_step(run.plan, run.original, known), Planned):
        if stage not in (None, planned.stage.name):
            break
        with at_step(outlook(run.plan, known, planned)):
            result = Step(run.materials, planned).result
        known.append(enter(run.store, run.plan, state, len(known), planned, result))
        tell(known[-1])
    return known
