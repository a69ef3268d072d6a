"""A run in one process: makes the steps of Algorithm 1 one after the other and delivers what is left of the model."""

import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from lmmpress import steps
from lmmpress.algorithm import Planned, next_step
from lmmpress.errors import UserError
from lmmpress.evaluation.accuracy import by_task, image_of_row
from lmmpress.evaluation.speed import measure_speeds
from lmmpress.gate import REPORTED_CONFIDENCE, decide, paired_drop
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.lmm.checkpoint import load_model, read_checkpoint, read_record, write_record
from lmmpress.lmm.examples import load_processor
from lmmpress.lmm.verify import verify_for_users
from lmmpress.materials import ROLES, Materials, split_of
from lmmpress.plan import Axis, Plan, digest_of
from lmmpress.progress import console
from lmmpress.pruning.predict import predict
from lmmpress.result import DataInfo, Headline, Recorder, Result, RunInfo, Speed, StepResult
from lmmpress.store import open_checkpoint, open_store
from lmmpress.store.state import Run as RunState

PLAN, RESULT, COMPRESSED = "plan.json", "result.json", "compressed"


def compress(plan: Plan, out: Path, recorder: Recorder | None = None, resume: bool = False) -> Result:
    """Compress the plan's model and leave `result.json`, `plan.json` and `compressed/` in the folder `out`.

    With `resume` a run that `out` or the plan's store holds is carried on: every part of a step that was finished is
    found there. Raises UserError before any work where plan, model and data do not fit together.
    """
    begun = time.perf_counter()
    teacher = open_checkpoint(plan.model)
    sizes = predict(read_checkpoint(teacher), plan)
    _check_data(plan)
    elsewhere = open_store(plan.store) if plan.store else None
    _claim(out, plan, resume)
    store = elsewhere or open_store(str(out / "store"))
    materials = Materials(plan, store, teacher)
    run_key = digest_of({"teacher": materials.teacher_digest, "data": _data_digest(plan), "plan": plan.key_settings()})
    with store.run(run_key) as state:
        run = _Run(materials, state, recorder, planned=len(sizes) - 1)
        original = steps.add_original(materials)
        gate = plan.tolerance.split
        start, seconds = steps.evaluate(materials, original, gate)
        run.spend("evaluate", seconds)
        if recorder:
            recorder.begin(_run_info(materials, run_key, float(start.double().mean())))
        final = run.all_steps(original)
        result = _close(run, original, final, run_key, begun)
        told = {"teacher": original, "plan": plan.model_dump(mode="json"), "run_key": run_key}
        _deliver(store.checkpoint(final), out / COMPRESSED, told)
        _write(out / RESULT, result.model_dump_json(indent=1))
        if recorder:
            recorder.end(result, out / COMPRESSED)
    return result


@dataclass
class _Run:
    """A run on its way: makes the steps that its state does not know yet, and keeps the records of all."""

    materials: Materials
    state: RunState
    recorder: Recorder | None
    planned: int
    records: list[StepResult] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """What was decided before this process began."""
        return self.state.history()

    def spend(self, part: str, seconds: float) -> None:
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def all_steps(self, original: str) -> str:
        """Every step until the stages have ended; the digest of what is left."""
        while isinstance(planned := next_step(self.materials.plan, original, self.records), Planned):
            self.records.append(self._step(planned))
        return planned

    def _step(self, planned: Planned) -> StepResult:
        """A step as the run's state knows it, or made now and decided there."""
        store, number = self.materials.store, len(self.records)
        if number < len(self.history):
            standing = self.history[number]
        else:
            made = self._make(planned)
            # another process may have decided meanwhile: what the state says is what counts
            standing = self.state.decide(number, made.model_dump(mode="json", exclude={"address"}))
        try:
            record = StepResult.model_validate(standing | {"address": None})
        except ValidationError:
            raise UserError(f"{store.root_address}: step {number + 1} of this run is none of lmmpress's") from None
        if record.checkpoint:  # where a store lies may change, what was decided does not
            record = record.model_copy(update={"address": store.address(record.checkpoint)})
        if (record.parent, record.stage, record.removed) != (planned.parent, planned.axis, planned.amount):
            raise UserError(f"{store.root_address}: step {number + 1} of this run is of another plan")
        for part, spent in record.seconds.items():
            self.spend(part, spent)
        _tell(record, number + 1, self.planned)
        if self.recorder:
            self.recorder.step(record)
        return record

    def _make(self, planned: Planned) -> StepResult:
        """One step: scores, cut, distil, measure, gate."""
        materials, gate = self.materials, self.materials.plan.tolerance.split
        parent, axis, amount = planned.parent, planned.axis, planned.amount
        name = planned.tower or read_checkpoint(materials.store.checkpoint(parent)).largest_tower()
        seconds = dict.fromkeys(("importance", "prune", "distill", "evaluate"), 0.0)
        scored = None
        if axis is not Axis.block:
            scored, seconds["importance"] = steps.importance(materials, parent)
        pruned, seconds["prune"] = steps.prune(materials, parent, name, axis, amount, scored.scores if scored else None)
        right_pruned, seconds["evaluate"] = steps.evaluate(materials, pruned, gate)
        distilled, loss, seconds["distill"] = steps.distill(materials, pruned)
        right = None
        if distilled is not None:
            right, spent = steps.evaluate(materials, distilled, gate)
            seconds["evaluate"] += spent
        reference, _ = steps.evaluate(materials, planned.reference, gate)
        owner = image_of_row(materials.examples[gate])
        verdict = decide(reference, right, owner, materials.plan.tolerance)
        counts = count_by_tower(read_checkpoint(materials.store.checkpoint(pruned)))
        return StepResult(
            stage=axis,
            index=planned.index,
            tower=name,
            removed=amount,
            decision=verdict.decision,
            reason=verdict.reason,
            parent=parent,
            checkpoint=distilled,
            address=None,
            parameters=sum(counts.values()),
            parameters_by_tower=counts,
            accuracy_pruned=float(right_pruned.double().mean()),
            accuracy=None if right is None else float(right.double().mean()),
            accuracy_by_task={} if right is None else by_task(materials.examples[gate], right),
            reference=float(reference.double().mean()),
            drop=verdict.drop,
            drop_interval=verdict.interval,
            score_reliability=scored.reliability if scored else None,
            loss=loss,
            seconds=seconds,
        )


def _close(run: _Run, original: str, final: str, run_key: str, begun: float) -> Result:
    """The closing measurements, on the test split that nothing has looked at before."""
    materials, plan = run.materials, run.materials.plan
    rights = {}
    for checkpoint in dict.fromkeys((original, final)):
        rights[checkpoint], seconds = steps.evaluate(materials, checkpoint, "test")
        run.spend("test", seconds)
    speed_begun = time.perf_counter()
    both = (original, final)
    headlines = [
        _headline(materials, checkpoint, rights[checkpoint], speed)
        for checkpoint, speed in zip(both, _speeds(materials, both), strict=True)
    ]
    run.spend("speed", time.perf_counter() - speed_begun)
    owner = image_of_row(materials.examples["test"])
    drop, interval = paired_drop(rights[original], rights[final], owner, REPORTED_CONFIDENCE)
    before, after = (headline.parameters_by_tower for headline in headlines)
    reduction = {name: before[name] / after[name] for name in before if after[name]}
    return Result(
        original=headlines[0],
        compressed=headlines[1],
        drop=drop,
        drop_interval=interval,
        reduction=reduction | {"all": headlines[0].parameters / headlines[1].parameters},
        steps=run.records,
        run_key=run_key,
        seconds=time.perf_counter() - begun,
        seconds_by_part=run.seconds,
        alpha=plan.tolerance.alpha,
        environment=_environment(materials),
    )


def _speeds(materials: Materials, checkpoints: tuple[str, ...]) -> list[Speed]:
    paths = [materials.store.checkpoint(checkpoint) for checkpoint in checkpoints]
    models = [load_model(path, materials.dtype).to(materials.accelerator.device) for path in paths]
    processors = [load_processor(path) for path in paths]
    return measure_speeds(models, processors, materials.examples["test"].split, materials.plan.evaluation)


def _headline(materials: Materials, checkpoint: str, right: torch.Tensor, speed: Speed) -> Headline:
    counts = count_by_tower(read_checkpoint(materials.store.checkpoint(checkpoint)))
    examples = materials.examples["test"]
    return Headline(
        checkpoint=checkpoint,
        address=materials.store.address(checkpoint),
        parameters=sum(counts.values()),
        parameters_by_tower=counts,
        accuracy=float(right.double().mean()),
        accuracy_by_task=by_task(examples, right),
        batch_size=speed.batch_size,
        samples_per_second=speed.samples_per_second,
        latency_ms=speed.latency_ms,
    )


def _claim(out: Path, plan: Plan, resume: bool) -> None:
    """Make the run's folder with the plan in it; UserError where it holds another run, or one not to be resumed."""
    wanted = plan.model_dump_json(indent=1)
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = out / PLAN
        if held.is_file():
            if Plan.model_validate_json(held.read_text("utf-8")).key_settings() != plan.key_settings():
                raise UserError(f"{out} holds a run of another plan; choose another folder with --out")
            if not resume:
                raise UserError(f"{out} holds this run already; add --resume to carry it on, or choose another --out")
        elif any(entry.name != "mlflow.db" for entry in out.iterdir()):
            raise UserError(f"{out} is not empty and holds no run; choose an empty or new folder with --out")
        _write(held, wanted)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"{out} cannot be used as the run's folder: {error.strerror}") from None


def _check_data(plan: Plan) -> None:
    """Every split has rows, and no image is both learned from and measured on."""
    seen = {role: set(split_of(plan, role).image_names()) for role in ROLES}
    for role in ("gate", "test"):
        for other in ("score", "distill"):
            if getattr(plan.splits, role) != getattr(plan.splits, other) and (shared := seen[role] & seen[other]):
                raise UserError(f"{plan.data}: image {min(shared)} is in the {role} and in the {other} split")


def _data_digest(plan: Plan) -> dict[str, str]:
    return {info.role: info.digest for info in _data_infos(plan)}


def _data_infos(plan: Plan) -> Iterator[DataInfo]:
    for role in ROLES:
        split = split_of(plan, role)
        yield DataInfo(split=split.name, role=role, rows=len(split.rows), digest=split.digest)


def _run_info(materials: Materials, run_key: str, gate_accuracy: float) -> RunInfo:
    return RunInfo(
        run_key=run_key,
        plan=materials.plan,
        teacher=materials.teacher_digest,
        teacher_address=materials.store.address(materials.teacher_digest),
        parameters_by_tower=count_by_tower(materials.anatomy),
        data=list(_data_infos(materials.plan)),
        gate_accuracy=gate_accuracy,
    )


def _environment(materials: Materials) -> dict[str, str]:
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "device": str(materials.accelerator.device),
        "dtype": str(materials.dtype).removeprefix("torch."),
        "threads": str(torch.get_num_threads()),
    }


def _deliver(checkpoint: Path, target: Path, told: dict[str, Any]) -> None:
    """Copy the final checkpoint out of the store, whole or not at all, once plain transformers has loaded it.

    `told` is added to its COMPRESSION.json.
    """
    aside = target.with_name(f"{target.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    # a store's files may not be written to; a user's copies may: permissions stay behind
    shutil.copytree(checkpoint, aside, copy_function=shutil.copyfile)
    write_record(aside, {"format": 1, "history": []} | (read_record(aside) or {}) | told)
    verify_for_users(aside)
    if target.exists():
        shutil.rmtree(target)
    aside.rename(target)


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text + "\n", "utf-8")
    os.replace(aside, path)


def _tell(step: StepResult, number: int, planned: int) -> None:
    after = "not finite" if step.accuracy is None else f"{step.accuracy:.4f}"
    console.print(
        f"step {number}/{planned} {step.stage} -{step.removed}: {step.parameters:,} parameters, accuracy "
        f"{step.accuracy_pruned:.4f} pruned, {after} distilled: {step.decision} ({step.reason})",
        highlight=False,
    )
