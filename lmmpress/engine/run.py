"""A run, for whoever works on it: the process that does it all, or a task of a pipeline among many machines' tasks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.history import read_history, read_step, write_step
from lmmpress.engine.materials import Materials, automatic_dtype, split_of
from lmmpress.engine.part_names import PARTS, Part
from lmmpress.engine.parts.evaluate import evaluate
from lmmpress.engine.parts.original import original_says, original_sees
from lmmpress.engine.row_checks import read_splits
from lmmpress.engine.step import Step
from lmmpress.errors import UserError
from lmmpress.evaluation.greedy import check_greedy
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.lmm.checkpoint import read_checkpoint
from lmmpress.lmm.fit import FITTED, was_blind
from lmmpress.lmm.processor import load_processor, tokenizer_of
from lmmpress.lmm.read_anatomy import read_config
from lmmpress.lmm.weights import check_finite
from lmmpress.plan import Plan, digest_of
from lmmpress.printing.visible import shortened
from lmmpress.progress import note, say
from lmmpress.pruning.sizes import Size, predict
from lmmpress.result import ROLES, DataInfo, RunInfo, StepResult
from lmmpress.store import Store, open_checkpoint
from lmmpress.store.address import lies_in
from lmmpress.store.records import DTYPE, RUN, RunNote
from lmmpress.store.state import RunState


@dataclass(frozen=True)
class Run:
    """`plan` as it was asked for; `key` names the question, `original` is the digest of the teacher."""

    plan: Plan
    key: str
    original: str
    materials: Materials

    @property
    def store(self) -> Store:
        return self.materials.store


@dataclass(frozen=True)
class CheckedPlan:
    """The teacher's directory, and the sizes after every step that a plan asks for."""

    teacher: Path
    sizes: list[Size]


def check(plan: Plan) -> CheckedPlan:
    """Check that plan, model and data fit together; UserError where they do not."""
    teacher = open_checkpoint(plan.model)
    sizes = predict(read_checkpoint(teacher), plan)
    check_finite(teacher)
    check_greedy(teacher, tokenizer_of(load_processor(teacher)))
    read_splits(plan)
    return CheckedPlan(teacher, sizes)


class Question(BaseModel):
    """What a run answers: `data` are the digests of the splits by their roles; `run_key` names all of it."""

    run_key: str
    teacher: str
    data: dict[str, str]


def question_of(plan: Plan, teacher: Path, original: str) -> Question:
    """The question that a plan asks of the teacher in that directory, whose digest is `original`."""
    data = {str(info.role): info.digest for info in _data_infos(plan)}
    fitting = {"fitted": FITTED} if was_blind(teacher, read_config(teacher)) else {}
    key = digest_of({"teacher": original, "data": data, "plan": plan.key_settings()} | fitting)
    return Question(run_key=key, teacher=original, data=data)


@dataclass(frozen=True)
class Begun:
    """A run whose teacher is in the store: the run's key, and the digest of the teacher."""

    key: str
    original: str


def begin(plan: Plan, store: Store, teacher: Path) -> Begun:
    """Take the teacher into the store, and note there what the run is about."""
    original = store.add_checkpoint(teacher)
    asked = question_of(plan, teacher, original)
    taken_in = not lies_in(plan.model, store.root_address)
    about = RunNote(teacher=original, data=sorted(set(asked.data.values())), taken_in=taken_in)
    store.write_record(f"{RUN}{asked.run_key}", about.model_dump())
    return Begun(asked.run_key, original)


def open_run(
    plan: Plan,
    store: Store,
    key: str,
    original: str,
    makes: frozenset[Part] = PARTS,
    settles: bool = True,
    every_gpu: bool = False,
) -> Run:
    """The run of that key, whose steps this process makes, or only some parts of them.

    With `every_gpu` it distils in one process for each GPU of this machine, if the plan asks for fewer: only rounding
    depends on that.

    What `dtype: auto` stands for is settled by the first process that computes for the run: a part that was made on a
    GPU is found by a task that has none. With `settles` this process is such a one.
    """
    asked = plan
    if plan.dtype == "auto":
        name = f"{DTYPE}{key}"
        noted = store.read_record(name)
        if noted is None and settles:
            noted = store.write_record(name, {"dtype": str(automatic_dtype()).removeprefix("torch.")})
        if noted is not None:
            plan = Plan.model_validate(plan.model_dump() | noted)
    if every_gpu:
        processes = max(plan.distillation.processes, torch.cuda.device_count())
        spread = plan.distillation.model_copy(update={"processes": processes})
        plan = plan.model_copy(update={"distillation": spread})
    return Run(asked, key, original, Materials(plan, store, original, makes))


def check_original(run: Run) -> None:
    """Before the first step: see that the original sees, and that it answers.

    Raises UserError where other pictures do not change its logits, and where it answers no row of the gate's split
    right, unless the plan allows that: such a gate would accept everything. What was measured is found in the store.
    """
    split = run.materials.split(run.plan.tolerance.split).name
    if not original_sees(run.materials):
        raise UserError(
            f"{run.plan.model}: no picture reaches the model: rows of split {split!r} get the same logits with other "
            "pictures; see that the processor's num_query_tokens (BLIP-2) or patch_size (LLaVA), and its image token, "
            "are those of config.json"
        )
    right = evaluate(run.materials, run.original, run.plan.tolerance.split).right
    if run.plan.tolerance.allow_zero or bool(right.any()):
        return
    answers = "; ".join(
        f"to {shortened(reply.row.question)} it says {shortened(reply.text) if reply.text.strip() else 'nothing'}"
        f"{'' if reply.ended else ' without an end'}, wanted is {shortened(reply.row.answer)}"
        for reply in original_says(run.materials)
    )
    raise UserError(
        f"{run.plan.model}: the original answers none of the {len(right)} rows of split {split!r} right, so the gate "
        f"would accept every step: {answers}; compress a model that was trained on such rows, or mend the rows (for a "
        "test on a random model set tolerance.allow_zero: true)"
    )


def describe(run: Run) -> RunInfo:
    """What the run starts from; measures the original where that was not done before."""
    answers = evaluate(run.materials, run.original, run.plan.tolerance.split)
    return RunInfo(
        run_key=run.key,
        plan=run.plan,
        teacher=run.original,
        teacher_address=run.store.address(run.original),
        parameters_by_tower=count_by_tower(run.materials.anatomy),
        data=list(_data_infos(run.plan)),
        gate_accuracy=answers.accuracy,
    )


def known_steps(run: Run, state: RunState) -> list[StepResult]:
    """The steps that were decided so far."""
    return read_history(run.store, run.plan, run.original, state.history())


def make_step(run: Run, state: RunState, known: list[StepResult], planned: Planned) -> StepResult:
    """Make the step that comes after those that are known, and decide it; what the run's state says of it then, be it
    another process's word."""
    made = Step(run.materials, planned).result
    entry = state.decide(len(known), write_step(made))
    step = read_step(run.store, planned, len(known), entry)
    _tell(step, len(known) + 1, run.plan)
    return step


def make_steps(
    run: Run, state: RunState, tell: Callable[[StepResult], None], stage: str | None = None
) -> list[StepResult]:
    """Every step that is left, or those of the stage of that name if it is its turn; `tell` hears of each, the known
    ones too."""
    known = known_steps(run, state)
    for number, step in enumerate(known, start=1):
        _tell(step, number, run.plan)
        tell(step)
    while isinstance(planned := next_step(run.plan, run.original, known), Planned):
        if stage not in (None, planned.stage.name):
            break
        known.append(make_step(run, state, known, planned))
        tell(known[-1])
    return known


def _data_infos(plan: Plan) -> Iterator[DataInfo]:
    for role in ROLES:
        split = split_of(plan, role)
        yield DataInfo(split=split.name, role=role, rows=len(split.rows), digest=split.digest)


def _tell(step: StepResult, number: int, plan: Plan) -> None:
    after = "not finite" if step.accuracy is None else f"{step.accuracy:.4f}"
    most = sum(map(plan.most_steps, plan.stages))
    line = (
        f"step {number}/{most} {step.stage} -{step.removed}: {step.parameters:,} parameters, accuracy "
        f"{step.accuracy_pruned:.4f} pruned, {after} distilled: {step.decision} ({step.reason})"
    )
    say(line)
    note(step=line)
