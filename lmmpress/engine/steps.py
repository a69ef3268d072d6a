"""A step and its parts: importance, prune, distil, evaluate; and what is measured once a run has ended.

Each part is named by a hash of what its result depends on and nothing else, and its result is stored under that name.
Doing it again finds the result: that is how a killed run resumes, a retried task costs nothing, and two ways of
scheduling the same plan meet in the same answers. Raise a part's version when its result changes.
"""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from lmmpress.axes import axis_named
from lmmpress.data import Row, Split
from lmmpress.distillation.train import distill as train
from lmmpress.engine.algorithm import Planned
from lmmpress.engine.materials import Materials, Part, Role
from lmmpress.errors import UserError
from lmmpress.evaluation.accuracy import answered_right, by_task, image_of_row
from lmmpress.evaluation.gate import decide
from lmmpress.evaluation.generate import LONGEST, generate, lengths, questions
from lmmpress.evaluation.sight import asked_about_pictures, sees
from lmmpress.evaluation.speed import Subject, measure_speeds, sampled
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint, save_trained
from lmmpress.lmm.examples import batches, encode, make_batch
from lmmpress.lmm.processor import load_processor, tokenizer_of
from lmmpress.lmm.record import read_record
from lmmpress.lmm.verify import verify_cut, verify_for_users, verify_saved
from lmmpress.plan import Distillation, digest_of
from lmmpress.pruning.choose import choose
from lmmpress.pruning.importance import Scored, Scores, answer_loss, other_axes, score
from lmmpress.result import Speed, StepResult
from lmmpress.store.records import OF, Subjects

VERSIONS: dict[Part, int] = {
    "sight": 1,
    "importance": 1,
    "prune": 1,
    "distill": 1,
    "evaluate": 1,
    "speed": 2,  # since 2 at the lengths of the right answers
    "load": 1,
}


def importance(materials: Materials, checkpoint: str) -> tuple[Scored, float]:
    """Scores of every group of a checkpoint, and the seconds they took."""
    settings, others = materials.plan.importance, other_axes(stage.axis for stage in materials.plan.stages)
    inputs = _inputs(materials, checkpoint, materials.split("score").digest, settings=settings.model_dump())
    if others:  # without any, the name is the one that it has always had
        inputs["axes"] = others

    def work(seed: int) -> dict[str, Any]:
        examples = materials.examples["score"]
        path = materials.store.checkpoint(checkpoint)
        model = load_model(path, materials.dtype).to(materials.accelerator.device)
        size = 1 if settings.accumulation == "sample" else settings.batch_size
        made = [
            make_batch(examples, chosen).to(materials.accelerator.device)
            for chosen in batches(examples, size, torch.Generator().manual_seed(seed))
        ]
        scored = score(
            model,
            read_checkpoint(path),
            made,
            lambda batch: answer_loss(materials.logits(model, batch, "score"), batch),
            settings,
            torch.Generator().manual_seed(seed),
            others,
        )
        materials.store.write_tensors(
            _name("importance", inputs), {key: value.cpu() for key, value in scored.scores.items()}
        )
        return {"reliability": scored.reliability}

    record = _once(materials, "importance", inputs, work)
    scores = materials.store.read_tensors(_name("importance", inputs))
    if scores is None:
        raise UserError(
            f"{materials.store.root_address}: tensors/{_name('importance', inputs)}.json is gone; "
            "`lmmpress store verify --discard` removes the record that needs it, and it is made anew"
        )
    return Scored(scores, record["reliability"]), record["seconds"]


def prune(
    materials: Materials, checkpoint: str, tower: str, axis: str, amount: int, scores: Scores | None
) -> tuple[str, float]:
    """The digest of the checkpoint that a cut leaves, and seconds."""
    cut = choose(materials.anatomy_of(checkpoint), tower, axis, amount, scores)

    def work(_: int) -> dict[str, Any]:
        source = materials.store.checkpoint(checkpoint)
        with materials.store.scratch() as folder:
            entry = {"pruned_from": checkpoint, "cut": cut.model_dump(mode="json")}
            record = _history(source, entry) | {"teacher": materials.original}
            apply_cuts(source, [cut], folder / "checkpoint", record)
            verify_cut(source, [cut], folder / "checkpoint")
            return {"checkpoint": materials.store.add_checkpoint(folder / "checkpoint")}

    inputs = {"checkpoint": checkpoint, "teacher": materials.original, "cut": cut.model_dump(mode="json")}
    record = _once(materials, "prune", inputs, work)
    return record["checkpoint"], record["seconds"]


def distill(materials: Materials, checkpoint: str) -> tuple[str | None, list[float], float]:
    """The digest of the distilled checkpoint (None where the loss was not finite), the loss by epoch, and seconds."""
    settings, data = materials.plan.distillation, materials.split("distill").digest
    if settings.epochs == 0:
        return checkpoint, [], 0.0

    def work(seed: int) -> dict[str, Any]:
        if settings.processes > materials.accelerator.num_processes:
            from lmmpress.engine.launch import distill_in_processes

            return distill_in_processes(materials, checkpoint, seed)
        return distill_here(materials, checkpoint, seed)

    inputs = _inputs(materials, checkpoint, data, settings=_lasting(settings), frozen=materials.frozen)
    record = _once(materials, "distill", inputs, work)
    return record["checkpoint"], record["loss"], record["seconds"]


def distill_here(materials: Materials, checkpoint: str, seed: int) -> dict[str, Any]:
    """Distil in this process, or as one of the processes that the accelerator knows of; the first one saves."""
    source = materials.store.checkpoint(checkpoint)
    model = load_model(source).to(materials.accelerator.device)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(materials.frozen))
    losses = train(
        model,
        materials.teacher_logits,
        materials.student_logits,
        materials.examples["distill"],
        materials.plan.distillation,
        seed,
        materials.accelerator,
    )
    materials.accelerator.free_memory()  # it would keep every step's model and optimiser until the run ends
    if losses is None:
        return {"checkpoint": None, "loss": []}
    if not materials.accelerator.is_main_process:
        return {"checkpoint": None, "loss": losses}
    with materials.store.scratch() as folder:
        entry = {
            "distilled_from": checkpoint,
            "settings": _lasting(materials.plan.distillation),
            "data": materials.examples["distill"].split.digest,
        }
        trained = materials.accelerator.unwrap_model(model)
        save_trained(trained, source, folder / "checkpoint", _history(source, entry))
        verify_saved(trained, folder / "checkpoint")
        return {"checkpoint": materials.store.add_checkpoint(folder / "checkpoint"), "loss": losses}


def evaluate(materials: Materials, checkpoint: str, role: Role) -> tuple[torch.Tensor, float]:
    """Which rows of a role the checkpoint answers right, booleans [rows], and seconds."""
    inputs: dict[str, Any] = {
        "checkpoint": checkpoint,
        "data": materials.split(role).digest,
        "dtype": str(materials.dtype),
    }
    if len(materials.ends) > 1:  # with one, it is the one that every answer has
        inputs["ends"] = sorted(materials.ends)

    def work(_: int) -> dict[str, Any]:
        examples = materials.examples[role]
        model = _model(materials, checkpoint)
        size = materials.plan.evaluation.batch_size
        features, projector = materials.features(role), materials.anatomy.projector
        right = answered_right(model, examples, projector, features, size, materials.ends)
        return {"right": "".join("1" if hit else "0" for hit in right.tolist())}

    record = _once(materials, "evaluate", inputs, work)
    if len(record["right"]) != len(materials.split(role).rows):
        raise _strange(materials, "evaluate", inputs, "speaks of another number of rows than the data has")
    return torch.tensor([mark == "1" for mark in record["right"]]), record["seconds"]


def speed(materials: Materials, checkpoints: Sequence[str]) -> tuple[list[Speed], dict[str, str], float]:
    """How fast checkpoints answer, measured taking turns; the machine that it was measured on, and seconds."""
    settings = materials.plan.evaluation
    inputs = {
        "checkpoints": list(checkpoints),
        "data": materials.split("test").digest,
        "dtype": str(materials.dtype),
        "settings": settings.model_dump(),
    }

    def work(_: int) -> dict[str, Any]:
        rows = sampled(materials.split("test"), settings)
        found = measure_speeds([_subject(materials, checkpoint, rows) for checkpoint in checkpoints], settings)
        return {"speeds": [one.model_dump() for one in found], "environment": _environment(materials)}

    record = _once(materials, "speed", inputs, work)
    try:
        speeds = [Speed.model_validate(one) for one in record["speeds"]]
    except ValidationError:
        speeds = []
    if len(speeds) != len(checkpoints):
        raise _strange(materials, "speed", inputs, "says of speeds what this lmmpress cannot read")
    return speeds, record["environment"], record["seconds"]


def _subject(materials: Materials, checkpoint: str, rows: Split) -> Subject:
    """A checkpoint and some rows, ready to generate answers."""
    processor = load_processor(materials.store.checkpoint(checkpoint))
    examples = encode(rows, processor, materials.anatomy_of(checkpoint).config)
    return Subject(_model(materials, checkpoint), tokenizer_of(processor), examples, materials.ends)


def _model(materials: Materials, checkpoint: str) -> torch.nn.Module:
    """A checkpoint's model, to be measured; the teacher's is in memory once."""
    if checkpoint == materials.original:
        return materials.teacher_model
    return load_model(materials.store.checkpoint(checkpoint), materials.dtype).to(materials.accelerator.device)


def original_sees(materials: Materials) -> bool:
    """Whether other pictures change what the original answers to the gate's rows; True where they have no pictures."""
    split = materials.split(materials.plan.tolerance.split)
    rows = asked_about_pictures(split)
    if not rows.rows or materials.anatomy.projector is None:
        return True
    inputs = {"checkpoint": materials.original, "data": split.digest, "dtype": str(materials.dtype)}

    def work(_: int) -> dict[str, Any]:
        processor = load_processor(materials.store.checkpoint(materials.original, weights=False))
        return {"sees": sees(materials.teacher_model, rows, processor, materials.anatomy)}

    found: bool = _once(materials, "sight", inputs, work)["sees"]
    return found


def original_says(materials: Materials, count: int = 3) -> list[tuple[Row, str, bool]]:
    """A few rows of the gate's split, with the text that plain greedy generation of the original gives to each, and
    whether it ends by itself."""
    split = materials.split(materials.plan.tolerance.split)
    places = sorted({number * len(split.rows) // count for number in range(count)})
    asked = _subject(materials, materials.original, replace(split, rows=tuple(split.rows[place] for place in places)))
    told = []
    for number, row in enumerate(asked.examples.split.rows):
        (tokens,) = generate(asked.model, questions(asked.model, asked.examples, [number]), LONGEST).tolist()
        ended = bool(set(tokens) & asked.ends)
        tokens = tokens[: lengths(torch.tensor([tokens]), asked.ends)[0]]
        told.append((row, str(asked.tokenizer.decode(tokens, skip_special_tokens=True)), ended))
    return told


def load_as_users_do(materials: Materials, checkpoint: str) -> None:
    """See that transformers alone loads a checkpoint and computes what it should; UserError where it does not."""
    import transformers

    inputs = {"checkpoint": checkpoint, "torch": torch.__version__, "transformers": transformers.__version__}

    def work(_: int) -> dict[str, Any]:
        verify_for_users(materials.store.checkpoint(checkpoint))
        return {}

    _once(materials, "load", inputs, work)


@dataclass
class Step:
    """One step of a run. Each part is made when it is first asked for, after those that it needs; what was made
    before, here or elsewhere, is found in the store. Each comes with the seconds it took."""

    materials: Materials
    planned: Planned

    @cached_property
    def tower(self) -> str:
        """The tower that is cut."""
        return self.planned.tower or self.materials.anatomy_of(self.planned.parent).largest_tower()

    @cached_property
    def scored(self) -> tuple[Scored | None, float]:
        """Scores of the checkpoint to be cut; None along an axis that needs none."""
        if not axis_named(self.planned.stage.axis).needs_scores:
            return None, 0.0
        return importance(self.materials, self.planned.parent)

    @cached_property
    def pruned(self) -> tuple[str, float]:
        """The digest of what the cut leaves."""
        scored, planned = self.scored[0], self.planned
        scores = scored.scores if scored else None
        return prune(self.materials, planned.parent, self.tower, planned.stage.axis, planned.amount, scores)

    @cached_property
    def distilled(self) -> tuple[str | None, list[float], float]:
        """The digest of what distillation makes of that, and its loss by epoch."""
        return distill(self.materials, self.pruned[0])

    @cached_property
    def right(self) -> tuple[torch.Tensor, torch.Tensor | None, float]:
        """Which rows of the gate's split are answered right when pruned, and when distilled."""
        pruned, seconds = evaluate(self.materials, self.pruned[0], self._gate)
        if self.distilled[0] is None:
            return pruned, None, seconds
        distilled, spent = evaluate(self.materials, self.distilled[0], self._gate)
        return pruned, distilled, seconds + spent

    @cached_property
    def result(self) -> StepResult:
        """The whole step, and what the gate says of it."""
        planned, split, tolerance = self.planned, self.materials.split(self._gate), self.materials.plan.tolerance
        (pruned, cutting), (distilled, loss, learning) = self.pruned, self.distilled
        right_pruned, right, measuring = self.right
        scored, scoring = self.scored
        reference, _ = evaluate(self.materials, planned.reference, self._gate)
        verdict = decide(reference, right, image_of_row(split), tolerance)
        counts = count_by_tower(self.materials.anatomy_of(pruned))
        return StepResult(
            stage=planned.stage.name,
            index=planned.index,
            tower=self.tower,
            removed=planned.amount,
            decision=verdict.decision,
            reason=verdict.reason,
            parent=planned.parent,
            checkpoint=distilled,
            address=None,
            parameters=sum(counts.values()),
            parameters_by_tower=counts,
            accuracy_pruned=float(right_pruned.double().mean()),
            accuracy=None if right is None else float(right.double().mean()),
            accuracy_by_task={} if right is None else by_task(split, right),
            reference=float(reference.double().mean()),
            drop=verdict.drop,
            drop_interval=verdict.interval,
            score_reliability=scored.reliability if scored else None,
            loss=loss,
            seconds={"importance": scoring, "prune": cutting, "distill": learning, "evaluate": measuring},
        )

    @property
    def _gate(self) -> Role:
        return self.materials.plan.tolerance.split


def _once(
    materials: Materials, part: Part, inputs: dict[str, Any], work: Callable[[int], dict[str, Any]]
) -> dict[str, Any]:
    """The stored result of a part, or that of doing it now, with a seed drawn from the part's name."""
    name = _name(part, inputs)
    record = materials.store.read_record(name)
    if record is None:
        if part not in materials.makes:
            raise UserError(f"{materials.store.root_address}: {part} is not done yet; another task of the run does it")
        begun = time.perf_counter()
        record = work(int(name[-15:], 16))
        record["seconds"] = time.perf_counter() - begun
        record[OF] = _subjects(inputs).model_dump()
        # where another process was first, its answer is the one that everybody goes on from
        record = materials.store.write_record(name, record)
    return record


def _strange(materials: Materials, part: Part, inputs: dict[str, Any], what: str) -> UserError:
    """What to tell of a record that this lmmpress has not written."""
    return UserError(f"{materials.store.root_address}: records/{_name(part, inputs)}.json {what}; remove it")


def _subjects(inputs: dict[str, Any]) -> Subjects:
    """The checkpoints and the split that a part's result is computed of."""
    checkpoints = inputs.get("checkpoints") or [inputs["checkpoint"]]
    return Subjects(checkpoints=checkpoints, data=[inputs["data"]] if "data" in inputs else [])


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


def _name(part: Part, inputs: dict[str, Any]) -> str:
    return f"{part}-{digest_of(inputs | {'part': part, 'version': VERSIONS[part]})}"


def _lasting(settings: Distillation) -> dict[str, Any]:
    """The distillation settings that its result depends on; how the work is spread changes only rounding."""
    return settings.model_dump(exclude={"micro_batch_size", "processes", "caches"})


def _inputs(materials: Materials, checkpoint: str, data: str, **others: Any) -> dict[str, Any]:
    """What importance and distillation both depend on."""
    return others | {
        "checkpoint": checkpoint,
        "teacher": materials.original,
        "data": data,
        "dtype": str(materials.dtype),
        "seed": materials.plan.seed,
    }


def _history(source: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """COMPRESSION.json of a checkpoint made from `source`: everything done to the teacher since, oldest first."""
    before = read_record(source) or {"format": 1, "history": []}
    return before | {"history": [*before["history"], entry]}
