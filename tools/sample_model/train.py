"""Trains AntGMM-mini, the sample's teacher: `python -m tools.sample_model.train --out DIR` (half an hour).

Such a small model hardly learns if it is trained end to end from scratch, so it is trained in two stages:

1. Eyes: vision tower and Q-Former, with a linear head on each query that predicts one attribute of the picture. The
   heads are discarded.
2. Language: the query outputs of all pictures are computed once. Then embeddings, projection and language tower learn
   to answer from them, with the loss on the answer's tokens only.

The data is the split "train" of the sample's generator, which is not part of the data set on disk. Every stage appends
its progress to `train_log.jsonl` in DIR.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Blip2ForConditionalGeneration, Blip2Processor, PreTrainedTokenizerFast

from lmmpress.sample.advert import Advert, Row
from lmmpress.sample.copywriting import ANSWERS, TASKS
from lmmpress.sample.dataset import SIZES, Adverts, in_memory
from tools.sample_model.architecture import QUERIES, make_model, make_processor, train_tokenizer

TRAIN_IMAGES = 24000
CHECK_IMAGES = 400  # of the split "check", to monitor the training; "test" is used only for the final measurement

EYES_EPOCHS, EYES_BATCH, EYES_RATE = 4, 64, 1.5e-3
LANGUAGE_STEPS, LANGUAGE_BATCH, LANGUAGE_RATE = 1000, 64, 1e-3
# Share of the rows of each task that are used; the model learns what needs only the picture in a hundred steps.
SHARES: dict[str, float] = {task: 1.0 if task == "content" else 0.12 for task in TASKS}

IGNORED = -100  # label of the tokens that carry no loss


class Batch(NamedTuple):
    """Rows for the language tower, padded on the right; (rows, tokens), except `images` and `tasks` (rows,)."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor  # labels[:, t] is the token that follows input_ids[:, t]
    images: Tensor
    tasks: Tensor


Log = Callable[..., None]


def update(
    loss: torch.Tensor, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler
) -> float:
    """Change the weights once, with clipped gradients; returns the loss."""
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    return loss.item()


def make_log(path: Path) -> Log:
    """A function that prints its fields and appends them to a JSON Lines file, with the seconds since this call."""
    start = time.perf_counter()

    def log(**fields: object) -> None:
        fields["seconds"] = round(time.perf_counter() - start, 1)
        line = json.dumps(fields, ensure_ascii=False)
        print(line, flush=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    return log


def schedule(optimizer: torch.optim.Optimizer, steps: int, warmup: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over `warmup` steps, then a half cosine down to zero."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def make_optimizer(modules: list[nn.Module], rate: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


# --- stage 1: eyes ---------------------------------------------------------------------------------------------


def to_pixel_values(pixels: NDArray[np.uint8]) -> Tensor:
    """Convert bytes (n, 64, 64, 3) to (n, 3, 64, 64) in -1..1, as the checkpoint's image processor does."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def query_outputs(model: Blip2ForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """The outputs of the Q-Former for pictures, before the projection: (n, queries, width)."""
    features = model.get_image_features(pixel_values, return_dict=True)
    outputs: Tensor = features.qformer_outputs.last_hidden_state
    return outputs


def shown(adverts: list[Advert]) -> Tensor:
    """The visible attributes of each picture, (n, tasks). For the content this is the pictogram, whatever the title
    sells."""
    attributes = ["pictogram" if task == "content" else task for task in TASKS]
    return torch.tensor([[getattr(advert, name) for name in attributes] for advert in adverts])


@torch.no_grad()
def all_query_outputs(model: Blip2ForConditionalGeneration, pixels: NDArray[np.uint8]) -> Tensor:
    model.eval()
    parts = [query_outputs(model, to_pixel_values(pixels[i : i + 200])) for i in range(0, len(pixels), 200)]
    return torch.cat(parts)


def train_eyes(model: Blip2ForConditionalGeneration, train: Adverts, check: Adverts, log: Log) -> None:
    """Train vision tower and Q-Former so that a linear head can predict the answer of task t from query t."""
    heads = nn.ModuleList(nn.Linear(model.config.qformer_config.hidden_size, len(ANSWERS[t])) for t in TASKS)
    optimizer = make_optimizer([model.vision_model, model.qformer, heads], EYES_RATE)
    optimizer.add_param_group({"params": [model.query_tokens], "weight_decay": 0.0})
    steps = EYES_EPOCHS * (len(train.adverts) // EYES_BATCH)
    scheduler = schedule(optimizer, steps, warmup=200)
    targets, check_targets = shown(train.adverts), shown(check.adverts)
    for epoch in range(EYES_EPOCHS):
        model.train()
        losses = []
        order = np.random.default_rng(epoch).permutation(len(train.adverts))
        for step in range(len(order) // EYES_BATCH):
            chosen = order[step * EYES_BATCH : (step + 1) * EYES_BATCH]
            outputs = query_outputs(model, to_pixel_values(train.pixels[chosen]))
            loss = torch.stack(
                [cross_entropy(head(outputs[:, t]), targets[chosen, t]) for t, head in enumerate(heads)]
            ).sum()
            losses.append(update(loss, optimizer, scheduler))
            if step % 100 == 99:
                log(stage="eyes", epoch=epoch, step=step + 1, loss=round(float(np.mean(losses[-100:])), 4))
        queries = all_query_outputs(model, check.pixels)
        right = {
            task: round((head(queries[:, t]).argmax(-1) == check_targets[:, t]).float().mean().item(), 4)
            for t, (task, head) in enumerate(zip(TASKS, heads, strict=True))
        }
        log(stage="eyes", epoch=epoch + 1, loss=round(float(np.mean(losses)), 4), accuracy=right)


# --- stage 2: language -----------------------------------------------------------------------------------------


def encode(tokenizer: PreTrainedTokenizerFast, rows: list[Row]) -> list[tuple[list[int], list[int]]]:
    """The prompt and answer tokens of each row: image tokens and question, then the answer with its end token."""
    image = [tokenizer.convert_tokens_to_ids("<image>")] * QUERIES
    questions = tokenizer([row.question for row in rows])["input_ids"]
    answers = tokenizer([row.answer for row in rows])["input_ids"]
    return [(image + q, [*a, tokenizer.eos_token_id]) for q, a in zip(questions, answers, strict=True)]


def batches(
    encoded: list[tuple[list[int], list[int]]],
    pad: int,
    size: int,
    shares: dict[str, float],
    rng: random.Random | None = None,
) -> Iterator[Batch]:
    """All rows once, in batches of similar length. An image has a row of each task that `shares` names, in its order.

    `rng` is for training: it shuffles the rows and uses only the given share of those of a task.
    """
    indices = list(range(len(encoded)))
    taken = list(shares.values())
    if rng:
        indices = [i for i in indices if taken[i % len(taken)] == 1 or rng.random() < taken[i % len(taken)]]
        rng.shuffle(indices)
    pool = 50 * size  # rows are sorted only within pools, so that the batches stay random enough
    pooled = [indices[i : i + pool] for i in range(0, len(indices), pool)]
    for part in pooled:
        part.sort(key=lambda i: len(encoded[i][0]) + len(encoded[i][1]))
    ordered = [i for part in pooled for i in part]
    starts = list(range(0, len(ordered), size))
    if rng:
        rng.shuffle(starts)
    for start in starts:
        chosen = ordered[start : start + size]
        pairs = [encoded[i] for i in chosen]
        length = max(len(prompt) + len(answer) for prompt, answer in pairs) - 1
        input_ids = torch.full((len(chosen), length), pad)
        labels = torch.full((len(chosen), length), IGNORED)
        mask = torch.zeros((len(chosen), length), dtype=torch.long)
        for line, (prompt, answer) in enumerate(pairs):
            tokens = prompt + answer[:-1]
            input_ids[line, : len(tokens)] = torch.tensor(tokens)
            mask[line, : len(tokens)] = 1
            labels[line, len(prompt) - 1 : len(tokens)] = torch.tensor(answer)
        rows = torch.tensor(chosen)
        yield Batch(input_ids, mask, labels, rows // len(taken), rows % len(taken))


def answer_logits(model: Blip2ForConditionalGeneration, batch: Batch, queries: Tensor) -> Tensor:
    """The logits at the answers' positions, (answer tokens of the batch, vocabulary).

    `queries` are the query outputs of the batch's pictures, (rows, queries, width).
    """
    embeddings = model.get_input_embeddings()(batch.input_ids)
    projected = model.language_projection(queries)
    # the image tokens come first in every row, so the projected queries replace the first embeddings
    embeddings = torch.cat([projected, embeddings[:, QUERIES:]], dim=1)
    tower = model.language_model.model
    hidden = tower(inputs_embeds=embeddings, attention_mask=batch.attention_mask, use_cache=False)
    logits: Tensor = model.language_model.lm_head(hidden.last_hidden_state[batch.labels != IGNORED])
    return logits


@torch.no_grad()
def accuracies(
    model: Blip2ForConditionalGeneration,
    encoded: list[tuple[list[int], list[int]]],
    queries: Tensor,
    pad: int,
    tasks: Iterable[str] = TASKS,
) -> dict[str, float]:
    """The share of rows with every answer token right, including the end token, overall and by task.

    Each token is predicted from the right tokens before it. The result is the same as with greedy generation.
    """
    model.eval()
    every = dict.fromkeys(tasks, 1.0)
    right, total = torch.zeros(len(every)), torch.zeros(len(every))
    for batch in batches(encoded, pad, 256, every):
        at = batch.labels != IGNORED
        wrong = torch.zeros_like(at)
        wrong[at] = answer_logits(model, batch, queries[batch.images]).argmax(-1) != batch.labels[at]
        right.index_add_(0, batch.tasks, (~wrong.any(1)).float())
        total.index_add_(0, batch.tasks, torch.ones(len(batch.tasks)))
    result = {"all": round((right.sum() / total.sum()).item(), 4)}
    return result | {task: round((right[t] / total[t]).item(), 4) for t, task in enumerate(every)}


def train_language(
    model: Blip2ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    train: Adverts,
    check: Adverts,
    log: Log,
    steps: int = LANGUAGE_STEPS,
    rate: float = LANGUAGE_RATE,
    shares: dict[str, float] = SHARES,
) -> None:
    """Train embeddings, projection and language tower on query outputs that are computed once; bench/warm.py trains
    them a little further with fewer `steps` and a lower `rate`, train_hard.py on other tasks, of which `shares` names
    all."""
    queries, check_queries = all_query_outputs(model, train.pixels), all_query_outputs(model, check.pixels)
    encoded = encode(tokenizer, [row for rows in train.rows for row in rows])
    checked = encode(tokenizer, [row for rows in check.rows for row in rows])
    log(stage="language", note="query outputs ready", rows=len(encoded))
    pad = tokenizer.pad_token_id
    optimizer = make_optimizer([model.language_projection, model.language_model], rate)
    scheduler = schedule(optimizer, steps, warmup=min(100, steps // 10))
    rng = random.Random(0)

    def endless() -> Iterator[Batch]:
        while True:
            yield from batches(encoded, pad, LANGUAGE_BATCH, shares, rng)

    losses: list[float] = []
    for step, batch in zip(range(1, steps + 1), endless(), strict=False):
        model.train()
        logits = answer_logits(model, batch, queries[batch.images])
        loss = cross_entropy(logits, batch.labels[batch.labels != IGNORED])
        losses.append(update(loss, optimizer, scheduler))
        if step % 25 == 0:
            fields: dict[str, object] = {"step": step, "loss": round(float(np.mean(losses[-25:])), 4)}
            if step % 200 == 0 or step == steps:
                fields["accuracy"] = accuracies(model, checked, check_queries, pad, shares)
            log(stage="language", **fields)


# --- the whole -------------------------------------------------------------------------------------------------


def save(model: Blip2ForConditionalGeneration, processor: Blip2Processor, directory: Path) -> None:
    """Write a float16 checkpoint with its checksums. The weights of `model` are rounded in place and stay float32."""
    model.half().save_pretrained(directory)
    processor.save_pretrained(directory)
    model.float()
    files = sorted(path for path in directory.iterdir() if path.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (directory / "SHA256SUMS").write_text("".join(sums), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and stage 1's result")
    parser.add_argument("--images", type=int, default=TRAIN_IMAGES)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    log = make_log(args.out / "train_log.jsonl")
    torch.manual_seed(0)

    train = in_memory("train", args.images)
    check = in_memory("check", CHECK_IMAGES)
    rows = [row for rows_of_image in train.rows[:3000] for row in rows_of_image]
    tokenizer = train_tokenizer([row.question for row in rows] + [row.answer for row in rows])
    processor = make_processor(tokenizer)
    log(stage="data", images=args.images, tokens=len(tokenizer))

    eyes = args.out / "eyes"
    if eyes.exists():
        model = Blip2ForConditionalGeneration.from_pretrained(eyes, dtype=torch.float32)
    else:
        model = make_model(tokenizer)
        train_eyes(model, train, check, log)
        model.save_pretrained(eyes)
    train_language(model, tokenizer, train, check, log)

    save(model, processor, args.out / "antgmm_mini")
    test = in_memory("test", SIZES["test"])
    encoded = encode(tokenizer, [row for rows_of_image in test.rows for row in rows_of_image])
    queries = all_query_outputs(model, test.pixels)
    log(stage="test", dtype="float16", accuracy=accuracies(model, encoded, queries, tokenizer.pad_token_id))


if __name__ == "__main__":
    main()
