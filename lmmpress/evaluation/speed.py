"""Speed from pixels to answer: `generate` on what the checkpoint's own processor made, and decoding the answer's text.

The clock starts with pixel values and token ids in memory: reading, resizing and tokenising are the same for every
model and are left out.
"""

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch

from lmmpress.data import Row, Split, open_image
from lmmpress.lmm.fit import asked, fitted
from lmmpress.plan import Evaluation
from lmmpress.progress import track
from lmmpress.result import Latency, Speed

_WARM_UP = 2
_PASSES = 5


@torch.no_grad()
def measure_speeds(
    models: Sequence[torch.nn.Module], processors: Sequence[Any], split: Split, settings: Evaluation
) -> list[Speed]:
    """Samples per second at the stated batch size and latency at batch 1 of each model, after warming up.

    The models take turns on the same rows, so that a machine which is slow for a while is slow for all of them. The
    rate is the median of five passes.
    """
    count = min(settings.samples, len(split.rows))
    rows = [split.rows[number * len(split.rows) // count] for number in range(count)]
    pairs = list(zip(models, processors, strict=True))
    groups = [
        [_prepare(model, processor, split, part) for part in _parts(rows, settings.batch_size)]
        for model, processor in pairs
    ]
    singles = [
        [_prepare(model, processor, split, [row]) for row in rows[: settings.latency_samples]]
        for model, processor in pairs
    ]
    for (model, processor), inputs in zip(pairs, groups, strict=True):
        _seconds(model, processor, inputs[:_WARM_UP])
    rates: list[list[float]] = [[] for _ in pairs]
    for _ in track(range(_PASSES), "throughput", _PASSES):
        for found, (model, processor), inputs in zip(rates, pairs, groups, strict=True):
            found.append(count / _seconds(model, processor, inputs))
    waits: list[list[float]] = [[] for _ in pairs]
    order = [*range(min(_WARM_UP, len(rows))), *range(len(singles[0]))]
    for number in track(order, "latency"):
        for found, (model, processor), inputs in zip(waits, pairs, singles, strict=True):
            found.append(1000 * _seconds(model, processor, inputs[number : number + 1]))
    quantiles = [torch.tensor(found[_WARM_UP:]).quantile(torch.tensor([0.5, 0.95])).tolist() for found in waits]
    return [
        Speed(
            batch_size=settings.batch_size,
            samples_per_second=median(found),
            latency_ms=Latency(p50=p50, p95=p95),
        )
        for found, (p50, p95) in zip(rates, quantiles, strict=True)
    ]


def _seconds(model: torch.nn.Module, processor: Any, inputs: Sequence[Any]) -> float:
    begun = time.perf_counter()
    for one in inputs:
        generate(model, processor, one)
    return time.perf_counter() - begun


@torch.no_grad()
def generate(model: torch.nn.Module, processor: Any, inputs: Any, longest: int = 32) -> list[str]:
    """The answers that greedy decoding gives to processed questions, at most `longest` tokens each."""
    ids = model.generate(**inputs, max_new_tokens=longest, do_sample=False)  # type: ignore[operator]
    prompt = inputs["input_ids"]
    echoed = ids.shape[1] > prompt.shape[1] and bool((ids[:, : prompt.shape[1]] == prompt).all())
    fresh = ids[:, prompt.shape[1] :] if echoed else ids
    texts = getattr(processor, "tokenizer", processor).batch_decode(fresh, skip_special_tokens=True)
    return [text.strip() for text in texts]


def answer(model: torch.nn.Module, processor: Any, split: Split, rows: Sequence[Row]) -> list[str]:
    """The answers that greedy decoding gives to some rows of a split."""
    return generate(model, processor, _prepare(model, processor, split, rows))


def _prepare(model: torch.nn.Module, processor: Any, split: Split, rows: Sequence[Row]) -> Any:
    """What the processor makes of some rows, padded on the left, on the model's device."""
    fitted(processor, model.config.to_dict())  # type: ignore[operator, union-attr]
    getattr(processor, "tokenizer", processor).padding_side = "left"
    images = [open_image(split, row.file_name) for row in rows if row.file_name is not None]
    given = {"images": images} if images else {}
    texts = [asked(split, row, processor) for row in rows]
    inputs = processor(text=texts, return_tensors="pt", padding=True, **given)
    return inputs.to(next(model.parameters()).device)


def _parts(rows: list[Row], size: int) -> list[list[Row]]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]
