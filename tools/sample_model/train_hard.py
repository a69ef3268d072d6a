"""Trains the harder sample's teacher: `python -m tools.sample_model.train_hard --out DIR`.

It begins with the sample's model: vision tower and Q-Former stay as they are, and the language tower keeps its first
blocks, which learn the harder questions on stored query outputs. So it takes a part of the time of a training from
scratch, and leaves the tower few blocks to spare.

The data is the split "train" of the harder sample's generator, which is not part of the data set on disk. The progress
is appended to `train_hard_log.jsonl` in DIR.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from lmmpress.sample import MODEL, hard
from lmmpress.sample.dataset import in_memory
from lmmpress.sample.hard_questions import TASKS
from tools.sample_model.check import keep_first
from tools.sample_model.train import CHECK_IMAGES, make_log, save, train_language

IMAGES = 6000
BLOCKS = 6
STEPS, RATE = 800, 1e-3
LONGEST = 12  # tokens of an answer, with its end: two answers of the sample in one

SHARES: dict[str, float] = dict.fromkeys(TASKS, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and log")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=RATE)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    log = make_log(args.out / "train_hard_log.jsonl")
    torch.manual_seed(0)

    model = Blip2ForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32)
    processor = Blip2Processor.from_pretrained(MODEL)
    keep_first(model, args.blocks)
    for generation in (model.generation_config, model.language_model.generation_config):
        generation.max_new_tokens = LONGEST
    train = in_memory("train", args.images, make=hard.make)
    check = in_memory("check", CHECK_IMAGES, make=hard.make)
    log(stage="data", images=args.images, blocks=args.blocks)
    train_language(model, processor.tokenizer, train, check, log, args.steps, args.rate, SHARES)
    save(model, processor, args.out / "antgmm_mini_hard")


if __name__ == "__main__":
    main()
