"""A run, for whoever works on it: the process that does it all, or a task of a pipeline among many machines' tasks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel

from lmmpress.engine import steps
from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.history import read_history, read_step, write_step
from lmmpress.engine.materials import PARTS, ROLES, Materials, Part, automatic_dtype, split_of
from lmmpress.engine.row_checks import read_splits
from lmmpress.errors import UserError
from lmmpress.evaluation.accuracy import by_task, image_of_row
from lmmpress.evaluation.gate import REPORTED_CONFIDENCE, paired_drop
from lmmpress.evaluation.greedy import check_greedy
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.lmm.checkpoint import read_checkpoint
from lmmpress.lmm.fit import FITTED, was_blind
from lmmpress.lmm.processor import load_processor, tokenizer_of
from lmmpress.lmm.read_anatomy import read_config
from lmmpress.lmm.weights import check_finite
from lmmpress.plan import Plan, digest_of
from lmmpress.printing.visible import shortened
from lmmpress.progress import begin_saying, console, note
from lmmpress.pruning.sizes import Size, predict
from lmmpress.result import DataInfo, Headline, Result, RunInfo, Speed, StepResult
from lmmpress.store import Store, open_checkpoint
from lmmpress.store.address import lies_in
from lmmpress.store.records import DTYPE, RUN, RunNote
from lmmpress.store.state import Run as State


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


def check(plan: Plan) -> tuple[Path, list[Size]]:
    """The teacher's directory and the sizes that the plan asks for, once plan, model and data have been found to fit
    together; UserError otherwise."""
    begin_saying()
    teacher = open_checkpoint(plan.model)
    sizes = predict(read_checkpoint(teacher), plan)
    check_finite(teacher)
    check_greedy(teacher, tokenizer_of(load_processor(teacher)))
    read_splits(plan)
    return teacher, sizes


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


def begin(plan: Plan, store: Store, teacher: Path) -> tuple[str, str]:
    """Take the teacher into the store; the run's key, and the teacher's digest."""
    original = store.add_checkpoint(teacher)
    asked = question_of(plan, teacher, original)
    taken_in = not lies_in(plan.model, store.root_address)
    about = RunNote(teacher=original, data=sorted(set(asked.data.values())), taken_in=taken_in)
    store.write_record(f"{RUN}{asked.run_key}", about.model_dump())
    return asked.run_key, original


def open_run(
    plan: Plan, store: Store, key: str, original: str, makes: frozenset[Part] = PARTS, settles: bool = True
) -> Run:
    """The run of that key, whose steps this process makes, or only some parts of them.

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
    return Run(asked, key, original, Materials(plan, store, original, makes))


def check_original(run: Run) -> None:
    """Before the first step: see that the original sees, and that it answers.

    Raises UserError where other pictures do not change its logits, and where it answers no row of the gate's split
    right, unless the plan allows that: such a gate would accept everything. What was measured is found in the store.
    """
    split = run.materials.split(run.plan.tolerance.split).name
    if not steps.original_sees(run.materials):
        raise UserError(
            f"{run.plan.model}: no picture reaches the model: rows of split {split!r} get the same logits with other "
            "pictures; see that the processor's num_query_tokens (BLIP-2) or patch_size (LLaVA), and its image token, "
            "are those of config.json"
        )
    right, _ = steps.evaluate(run.materials, run.original, run.plan.tolerance.split)
    if run.plan.tolerance.allow_zero or bool(right.any()):
        return
    answers = "; ".join(
        f"to {shortened(row.question)} it says {shortened(text) if text.strip() else 'nothing'}"
        f"{'' if ended else ' without an end'}, wanted is {shortened(row.answer)}"
        for row, text, ended in steps.original_says(run.materials)
    )
    raise UserError(
        f"{run.plan.model}: the original answers none of the {len(right)} rows of split {split!r} right, so the gate "
        f"would accept every step: {answers}; compress a model that was trained on such rows, or mend the rows (for a "
        "test on a random model set tolerance.allow_zero: true)"
    )


def describe(run: Run) -> RunInfo:
    """What the run starts from; measures the original where that was not done before."""
    right, _ = steps.evaluate(run.materials, run.original, run.plan.tolerance.split)
    return RunInfo(
        run_key=run.key,
        plan=run.plan,
        teacher=run.original,
        teacher_address=run.store.address(run.original),
        parameters_by_tower=count_by_tower(run.materials.anatomy),
        data=list(_data_infos(run.plan)),
        gate_accuracy=float(right.double().mean()),
    )


def known_steps(run: Run, state: State) -> list[StepResult]:
    """The steps that were decided so far."""
    return read_history(run.store, run.plan, run.original, state.history())


def make_step(run: Run, state: State, known: list[StepResult], planned: Planned) -> StepResult:
    """Make the step that comes after those that are known, and decide it; what the run's state says of it then, be it
    another process's word."""
    made = steps.Step(run.materials, planned).result
    entry = state.decide(len(known), write_step(made))
    step = read_step(run.store, planned, len(known), entry)
    _print(step, len(known) + 1, run.plan)
    return step


def make_steps(
    run: Run, state: State, tell: Callable[[StepResult], None], stage: str | None = None
) -> list[StepResult]:
    """Every step that is left, or those of the stage of that name if it is its turn; `tell` hears of each, the known
    ones too."""
    known = known_steps(run, state)
    for number, step in enumerate(known, start=1):
        _print(step, number, run.plan)
        tell(step)
    while isinstance(planned := next_step(run.plan, run.original, known), Planned):
        if stage not in (None, planned.stage.name):
            break
        known.append(make_step(run, state, known, planned))
        tell(known[-1])
    return known


def close(run: Run, known: list[StepResult], seconds: float | None = None) -> Result:
    """The result of a run whose stages have ended: the closing measurements, on the test split that nothing has looked
    at before. `seconds` is how long the run took, where that is more than the sum of its parts."""
    final = next_step(run.plan, run.original, known)
    if isinstance(final, Planned):
        raise UserError(f"this run has not ended: step {len(known) + 1} is open; carry it on first")
    materials = run.materials
    rights = {one: steps.evaluate(materials, one, "test") for one in dict.fromkeys((run.original, final))}
    speeds, environment, measuring = steps.speed(materials, (run.original, final))
    headlines = [
        _headline(materials, checkpoint, rights[checkpoint][0], speed)
        for checkpoint, speed in zip((run.original, final), speeds, strict=True)
    ]
    owner = image_of_row(materials.split("test"))
    drop, interval = paired_drop(rights[run.original][0], rights[final][0], owner, REPORTED_CONFIDENCE)
    before, after = (headline.parameters_by_tower for headline in headlines)
    reduction = {name: before[name] / after[name] for name in before if after[name]}
    parts = _seconds_by_part(run, known) | {"test": sum(spent for _, spent in rights.values()), "speed": measuring}
    return Result(
        original=headlines[0],
        compressed=headlines[1],
        drop=drop,
        drop_interval=interval,
        reduction=reduction | {"all": headlines[0].parameters / headlines[1].parameters},
        steps=known,
        run_key=run.key,
        seconds=sum(parts.values()) if seconds is None else seconds,
        seconds_by_part=parts,
        alpha=run.plan.tolerance.alpha,
        environment=environment,
    )


def _seconds_by_part(run: Run, known: list[StepResult]) -> dict[str, float]:
    _, start = steps.evaluate(run.materials, run.original, run.plan.tolerance.split)
    spent = {"evaluate": start}
    for step in known:
        for part, seconds in step.seconds.items():
            spent[part] = spent.get(part, 0.0) + seconds
    return spent


def _headline(materials: Materials, checkpoint: str, right: torch.Tensor, speed: Speed) -> Headline:
    counts = count_by_tower(materials.anatomy_of(checkpoint))
    return Headline(
        checkpoint=checkpoint,
        address=materials.store.address(checkpoint),
        parameters=sum(counts.values()),
        parameters_by_tower=counts,
        accuracy=float(right.double().mean()),
        accuracy_by_task=by_task(materials.split("test"), right),
        batch_size=speed.batch_size,
        samples_per_second=speed.samples_per_second,
        latency_ms=speed.latency_ms,
        tokens=speed.tokens,
        natural_tokens=speed.natural_tokens,
    )


def _data_infos(plan: Plan) -> Iterator[DataInfo]:
    for role in ROLES:
        split = split_of(plan, role)
        yield DataInfo(split=split.name, role=role, rows=len(split.rows), digest=split.digest)


def _print(step: StepResult, number: int, plan: Plan) -> None:
    after = "not finite" if step.accuracy is None else f"{step.accuracy:.4f}"
    most = sum(map(plan.most_steps, plan.stages))
    line = (
        f"step {number}/{most} {step.stage} -{step.removed}: {step.parameters:,} parameters, accuracy "
        f"{step.accuracy_pruned:.4f} pruned, {after} distilled: {step.decision} ({step.reason})"
    )
    console.print(line)
    note(step=line)
