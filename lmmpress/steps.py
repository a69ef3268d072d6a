"""The parts of a step: importance, prune, distil, evaluate.

Each part is named by a hash of what its result depends on and nothing else, and its result is stored under that name.
Doing it again finds the result: that is how a killed run resumes, a retried task costs nothing, and two ways of
scheduling the same plan meet in the same answers. Raise a part's version when its result changes.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lmmpress.distillation.train import distill as train
from lmmpress.evaluation.accuracy import answered_right
from lmmpress.importance import Scored, Scores, answer_loss, score
from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint, read_record, save_trained
from lmmpress.lmm.examples import batches, make_batch
from lmmpress.lmm.verify import verify_cut, verify_saved
from lmmpress.materials import Materials, Role
from lmmpress.plan import Axis, Distillation, digest_of
from lmmpress.pruning.choose import choose

VERSIONS = {"importance": 1, "prune": 1, "distill": 1, "evaluate": 1}


def importance(materials: Materials, checkpoint: str) -> tuple[Scored, float]:
    """Scores of every group of a checkpoint, and the seconds they took."""
    settings, examples = materials.plan.importance, materials.examples["score"]
    inputs = _inputs(materials, checkpoint, examples.split.digest, settings=settings.model_dump())

    def work(seed: int) -> dict[str, Any]:
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
        )
        materials.store.write_tensors(
            _name("importance", inputs), {key: value.cpu() for key, value in scored.scores.items()}
        )
        return {"reliability": scored.reliability}

    record = _once(materials, "importance", inputs, work)
    scores = materials.store.read_tensors(_name("importance", inputs))
    assert scores is not None
    return Scored(scores, record["reliability"]), record["seconds"]


def prune(
    materials: Materials, checkpoint: str, tower: str, axis: Axis, amount: int, scores: Scores | None
) -> tuple[str, float]:
    """The digest of the checkpoint that a cut leaves, and seconds."""
    source = materials.store.checkpoint(checkpoint)
    cut = choose(read_checkpoint(source), tower, axis, amount, scores)

    def work(_: int) -> dict[str, Any]:
        with materials.store.scratch() as folder:
            entry = {"pruned_from": checkpoint, "cut": cut.model_dump(mode="json")}
            record = _history(source, entry) | {"teacher": materials.teacher_digest}
            apply_cuts(source, [cut], folder / "checkpoint", record)
            verify_cut(source, [cut], folder / "checkpoint")
            return {"checkpoint": materials.store.add_checkpoint(folder / "checkpoint")}

    inputs = {"checkpoint": checkpoint, "teacher": materials.teacher_digest, "cut": cut.model_dump(mode="json")}
    record = _once(materials, "prune", inputs, work)
    return record["checkpoint"], record["seconds"]


def distill(materials: Materials, checkpoint: str) -> tuple[str | None, list[float], float]:
    """The digest of the distilled checkpoint (None where the loss was not finite), the loss by epoch, and seconds."""
    settings, examples = materials.plan.distillation, materials.examples["distill"]
    if settings.epochs == 0:
        return checkpoint, [], 0.0

    def work(seed: int) -> dict[str, Any]:
        if settings.processes > materials.accelerator.num_processes:
            from lmmpress.distillation.launch import distill_in_processes

            return distill_in_processes(materials, checkpoint, seed)
        return distill_here(materials, checkpoint, seed)

    inputs = _inputs(materials, checkpoint, examples.split.digest, settings=_lasting(settings), frozen=materials.frozen)
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
        lambda student, batch: materials.logits(student, batch, "distill"),
        materials.examples["distill"],
        materials.plan.distillation,
        seed,
        materials.accelerator,
    )
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
    examples = materials.examples[role]
    inputs = {"checkpoint": checkpoint, "data": examples.split.digest, "dtype": str(materials.dtype)}

    def work(_: int) -> dict[str, Any]:
        model = load_model(materials.store.checkpoint(checkpoint), materials.dtype).to(materials.accelerator.device)
        size = materials.plan.evaluation.batch_size
        right = answered_right(model, examples, materials.anatomy.projector, materials.features(role), size)
        return {"right": "".join("1" if hit else "0" for hit in right.tolist())}

    record = _once(materials, "evaluate", inputs, work)
    return torch.tensor([mark == "1" for mark in record["right"]]), record["seconds"]


def add_original(materials: Materials) -> str:
    """Take the teacher into the store; its digest."""
    return materials.store.add_checkpoint(materials.teacher)


def _once(
    materials: Materials, part: str, inputs: dict[str, Any], work: Callable[[int], dict[str, Any]]
) -> dict[str, Any]:
    """The stored result of a part, or that of doing it now, with a seed drawn from the part's name."""
    name = _name(part, inputs)
    record = materials.store.read_record(name)
    if record is None:
        begun = time.perf_counter()
        record = work(int(name[-15:], 16))
        record["seconds"] = time.perf_counter() - begun
        # where another process was first, its answer is the one that everybody goes on from
        record = materials.store.write_record(name, record)
    return record


def _name(part: str, inputs: dict[str, Any]) -> str:
    return f"{part}-{digest_of(inputs | {'part': part, 'version': VERSIONS[part]})}"


def _lasting(settings: Distillation) -> dict[str, Any]:
    """The distillation settings that its result depends on; how the work is spread changes only rounding."""
    return settings.model_dump(exclude={"micro_batch_size", "processes", "caches"})


def _inputs(materials: Materials, checkpoint: str, data: str, **others: Any) -> dict[str, Any]:
    """What importance and distillation both depend on."""
    return others | {
        "checkpoint": checkpoint,
        "teacher": materials.teacher_digest,
        "data": data,
        "dtype": str(materials.dtype),
        "seed": materials.plan.seed,
    }


def _history(source: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """COMPRESSION.json of a checkpoint made from `source`: everything done to the teacher since, oldest first."""
    before = read_record(source) or {"format": 1, "history": []}
    return before | {"history": [*before["history"], entry]}
