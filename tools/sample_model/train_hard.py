"""Trains the harder sample's teacher: `python -m tools.sample_model.train_hard --out DIR` (half an hour).

It begins with the sample's model: vision tower and Q-Former stay as they are, and the language tower keeps its first
blocks, which learn the harder questions on stored query outputs. So it takes a part of the time of a training from
scratch, and leaves the tower few blocks to spare.

The data is the split "train" of the harder sample's generator, which is not part of the data set on disk. The progress
is appended to `train_hard_log.jsonl` in DIR. A part of the training whose checkpoint lies in DIR is not done again.

The kept weights and their log are of a training in which half of the rows of `condition` asked for the logo if the
background has a colour that the question names, else for the style. The tower did not learn that (it stayed at chance),
so the data no longer ask it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from lmmpress.sample import HARD_MODEL, MODEL, hard
from lmmpress.sample.dataset import in_memory
from lmmpress.sample.hard_questions import TASKS
from tools.sample_model.check import keep_first
from tools.sample_model.train import CHECK_IMAGES, make_log, save, train_language

IMAGES = 6000
BLOCKS = 6
LONGEST = 12  # tokens of an answer, with its end: two answers of the sample in one


class Part(NamedTuple):
    """A part of the training: `shares` is the share of the rows of each task that is used."""

    folder: str
    steps: int
    rate: float
    shares: dict[str, float]


# To compare is learned last: in the first part the loss of the other tasks falls long before that of these.
COMPARING = ("which_sells", "condition")
PARTS: tuple[Part, ...] = (
    Part("first_part", 800, 1e-3, dict.fromkeys(TASKS, 1.0)),
    Part(HARD_MODEL.name, 400, 8e-4, {task: 1.0 if task in COMPARING else 0.15 for task in TASKS}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and log")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    log = make_log(args.out / "train_hard_log.jsonl")
    torch.manual_seed(0)

    processor = Blip2Processor.from_pretrained(MODEL)
    train = in_memory("train", IMAGES, make=hard.make)
    check = in_memory("check", CHECK_IMAGES, make=hard.make)
    log(stage="data", images=IMAGES, blocks=BLOCKS)
    start = MODEL
    for part in PARTS:
        if not (args.out / part.folder).exists():
            model = Blip2ForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
            keep_first(model, BLOCKS)
            for generation in (model.generation_config, model.language_model.generation_config):
                generation.max_new_tokens = LONGEST
            train_language(model, processor.tokenizer, train, check, log, part.steps, part.rate, part.shares)
            save(model, processor, args.out / part.folder)
        start = args.out / part.folder


if __name__ == "__main__":
    main()
