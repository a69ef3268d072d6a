"""Speed from pixels to answer: the checkpoint's own processor and `generate`, images already decoded."""

import time
from statistics import median
from typing import Any

import torch
from PIL import Image

from lmmpress.data import Split, open_image
from lmmpress.plan import Evaluation
from lmmpress.progress import track
from lmmpress.result import Latency, Speed

_WARM_UP = 2


@torch.no_grad()
def measure_speed(model: torch.nn.Module, processor: Any, split: Split, settings: Evaluation) -> Speed:
    """Samples per second at the stated batch size and latency at batch 1, after warming up.

    The rate is the median of three passes over the same rows.
    """
    count = min(settings.samples, len(split.rows))
    rows = [split.rows[number * len(split.rows) // count] for number in range(count)]
    images = [None if row.file_name is None else open_image(split, row.file_name) for row in rows]
    groups = [slice(at, at + settings.batch_size) for at in range(0, count, settings.batch_size)]
    for part in groups[:_WARM_UP]:
        answer(model, processor, [row.question for row in rows[part]], images[part])
    rates = []
    for _ in track(range(3), "throughput", 3):
        begun = time.perf_counter()
        for part in groups:
            answer(model, processor, [row.question for row in rows[part]], images[part])
        rates.append(count / (time.perf_counter() - begun))
    waits = []
    singles = range(min(settings.latency_samples, count))
    for number in track([*singles[:_WARM_UP], *singles], "latency"):
        begun = time.perf_counter()
        answer(model, processor, [rows[number].question], [images[number]])
        waits.append(1000 * (time.perf_counter() - begun))
    quantiles = torch.tensor(waits[_WARM_UP:]).quantile(torch.tensor([0.5, 0.95])).tolist()
    return Speed(
        batch_size=settings.batch_size,
        samples_per_second=median(rates),
        latency_ms=Latency(p50=quantiles[0], p95=quantiles[1]),
    )


@torch.no_grad()
def answer(
    model: torch.nn.Module, processor: Any, questions: list[str], images: list[Image.Image | None], longest: int = 32
) -> list[str]:
    """The answers that greedy decoding gives, at most `longest` tokens each."""
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.padding_side = "left"
    given = {} if images[0] is None else {"images": images}
    inputs = processor(text=questions, return_tensors="pt", padding=True, **given).to(next(model.parameters()).device)
    ids = model.generate(**inputs, max_new_tokens=longest, do_sample=False)  # type: ignore[operator]
    prompt = inputs["input_ids"].shape[1]
    fresh = ids[:, prompt:] if ids.shape[1] > prompt and bool((ids[:, :prompt] == inputs["input_ids"]).all()) else ids
    return [text.strip() for text in tokenizer.batch_decode(fresh, skip_special_tokens=True)]
