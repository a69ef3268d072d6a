"""Measures what the caches save, and the cost of the training loop compared with a bare training step.

    python bench/distillation.py [--rounds 3] [--rows 512]

For the first shape of the sample run (the original) and the last one (every stage at its maximum): one epoch over the
same rows with and without caches, paired; and one epoch of a bare loop (forward with cached visual features,
cross-entropy, backward, AdamW) over the same batches. The one-time cost of filling the caches is reported. The ratio of
the whole run is computed from the epochs of the plan's steps. Last, the share of an epoch that waits for its batches,
which threads make: with caches their features are read from a file, without them their pictures are decoded; and the
same where no decoded picture is kept, as of data that does not fit memory.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import paired, sample_materials, show, spread

from lmmpress.distillation.learner import Learner
from lmmpress.distillation.train import distill
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.lesson import lesson_of
from lmmpress.lmm import portions
from lmmpress.lmm.batches import Batch, grouped, make_batch
from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint
from lmmpress.lmm.examples import Examples
from lmmpress.pruning.choose import choose
from lmmpress.pruning.importance import answer_loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=512)
    arguments = parser.parse_args()
    cached, plain = sample_materials(), sample_materials(distillation__caches="false")
    begun = time.perf_counter()
    cached.features("distill")
    features_seconds = time.perf_counter() - begun
    _ = cached.teacher_states
    result: dict[str, object] = {
        "fill_features_seconds": features_seconds,
        "fill_all_seconds": time.perf_counter() - begun,
        "rows": arguments.rows,
    }
    saved, both = [], {"with_caches": cached, "without_caches": plain}
    for shape, path in shapes(cached):
        model = load_model(path)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(cached.frozen))
        examples = cached.examples("distill")
        few = dataclasses.replace(examples, rows=examples.rows[: arguments.rows])

        def epoch(materials: Materials) -> None:
            settings = materials.plan.distillation.model_copy(update={"epochs": 1})
            whole = lesson_of(materials, materials.original, "whole", settings, None)
            lesson = dataclasses.replace(whole, examples=few)
            distill(Learner(model), lesson, float(settings.learning_rate), 0, materials.accelerator)

        def bare() -> None:
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
            size = cached.plan.distillation.batch_size
            for chosen in grouped(few, size, torch.Generator().manual_seed(0)):
                batch = make_batch(few, chosen, cached.features("distill"))
                answer_loss(cached.logits(model, batch), batch).backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                optimizer.zero_grad()

        waits = {name: [waiting(partial(epoch, one)) for _ in range(arguments.rounds)] for name, one in both.items()}
        with nothing_kept(few):
            waits["decoding_again"] = [waiting(partial(epoch, plain)) for _ in range(arguments.rounds)]
        against_plain = paired(lambda: epoch(plain), lambda: epoch(cached), arguments.rounds)
        against_bare = paired(bare, lambda: epoch(cached), arguments.rounds)
        saved.append((against_plain["first_seconds"]["median"], against_plain["second_seconds"]["median"]))
        result[shape] = {
            "language_parameters": sum(p.numel() for n, p in model.named_parameters() if "language_model" in n),
            "waiting_share": {name: spread(found) for name, found in waits.items()},
            "without_caches_over_with": against_plain["ratio"],
            "speed_of_a_bare_training_step": against_bare["ratio"],
        }
    show(result)


def waiting(work: Callable[[], object]) -> float:
    """The share of the time of some distillation that waits for the next batch."""
    waited, really = 0.0, portions.by_workers

    def timed(*what: Any) -> Iterator[Batch]:
        nonlocal waited
        batches = really(*what)
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - begun
            if batch is None:
                return
            yield batch

    portions.by_workers = timed  # type: ignore[assignment]
    try:
        begun = time.perf_counter()
        work()
        return waited / (time.perf_counter() - begun)
    finally:
        portions.by_workers = really


@contextmanager
def nothing_kept(examples: Examples) -> Iterator[None]:
    """Every picture is decoded each time."""
    assert examples.pixels is not None
    kept, left = dict(examples.pixels._kept), examples.pixels._left
    examples.pixels._kept.clear()
    examples.pixels._left = 0
    yield
    examples.pixels._kept.update(kept)
    examples.pixels._left = left


def shapes(materials: Materials) -> Iterator[tuple[str, Path]]:
    """The original, and the checkpoint after every stage has reached its maximum."""
    yield "first shape", materials.teacher
    path = materials.teacher
    for number, stage in enumerate(materials.plan.stages):
        anatomy = read_checkpoint(path)
        groups = anatomy.axis("language", stage.axis).groups
        scores = {group.name: torch.arange(group.size).double() for group in groups}
        target = Path(tempfile.mkdtemp()) / str(number)
        apply_cuts(path, anatomy, [choose(anatomy, "language", stage.axis, stage.numbers()[1], scores)], target)
        path = target
    yield "last shape", path


if __name__ == "__main__":
    main()
