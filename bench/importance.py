"""Measures the cost of scoring: each accumulation against a bare forward and backward pass over the same batches.

    python bench/importance.py [--rounds 5] [--rows 256]

It computes on the GPU if there is one. Without one the ratios are of processor time.
"""

import argparse
from functools import partial
from typing import Literal

import torch
from common import paired, sample_materials, show, working_seconds

from lmmpress.lmm.batches import Batch, grouped, make_batch
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.portions import Portions
from lmmpress.pruning.importance import answer_loss, score
from lmmpress.settings.importance import Importance

CASES: list[tuple[Literal["dataset", "batch", "sample"], int]] = [
    ("dataset", 1),
    ("dataset", 4),
    ("batch", 1),
    ("sample", 1),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=256)
    arguments = parser.parse_args()
    materials = sample_materials(importance__rows=str(arguments.rows))
    examples, anatomy = materials.examples("score"), read_checkpoint(materials.teacher)
    features = materials.features("score")
    device = materials.accelerator.device
    model = load_model(materials.teacher, materials.dtype).to(device)
    result: dict[str, object] = {"rows": arguments.rows}
    for accumulation, passes in CASES:
        size = 1 if accumulation == "sample" else 32
        order = grouped(examples, size)
        made = {tuple(chosen): make_batch(examples, chosen, features).to(device) for chosen in order}  # beforehand
        scoring_batches = Portions(order, partial(_one_of, made))
        settings = Importance(accumulation=accumulation, passes=passes)

        def loss(batch: Batch) -> torch.Tensor:
            return answer_loss(materials.logits(model, batch), batch)

        def bare() -> None:
            for batch in scoring_batches:
                loss(batch).backward()
                model.zero_grad(set_to_none=True)

        def scoring() -> None:
            score(model, anatomy, scoring_batches, len(examples.rows), loss, settings, torch.Generator())

        found = paired(scoring, bare, arguments.rounds, working_seconds)
        result[f"{accumulation}, {passes} pass{'es' if passes > 1 else ''}"] = {"ratio": found["ratio"]}
    show(result)


def _one_of(made: dict[tuple[int, ...], Batch], chosen: list[int]) -> Batch:
    return made[tuple(chosen)]


if __name__ == "__main__":
    main()
