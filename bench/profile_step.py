"""Measures where the time of one step of the sample goes: the share of each part, and what distilling spends it on.

    python bench/profile_step.py [--rows 512] [--axis ffn]

The step is made twice, each time from the original and in a new store: plain, which gives the shares of the parts, and
with torch's profiler around `distill`. Shares of parts are of processor time, which
other work on the machine changes little.
`pieces` divide what distilling takes: the time inside of a piece, without that of pieces inside of it. `largest` are
operators by their own time, each within its piece; an operator named `python` is all that is not inside of one of
torch's. Time that is neither in a piece nor in an operator is not counted. Other threads, which make batches, are seen
only where they are waited for.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from accelerate import Accelerator
from common import sample_materials, show
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from lmmpress.distillation import train
from lmmpress.engine import materials as shared
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts import training
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.evaluate import evaluate
from lmmpress.engine.parts.importance import importance
from lmmpress.engine.parts.prune import prune

Found = TypeVar("Found")
LABEL = "piece: "
PIECES: list[tuple[Any, str, str]] = [
    (shared, "visual_features", "filling the cache of visual features"),
    (shared, "answer_states", "filling the cache of the teacher's states"),
    (Materials, "teacher_logits", "the teacher's logits"),
    (Materials, "student_logits", "forward pass"),
    (train, "distillation_loss", "loss"),
    (Accelerator, "backward", "backward pass"),
    (Accelerator, "clip_grad_norm_", "clipping gradients"),
    (torch.optim.AdamW, "step", "AdamW"),
    (training, "load_model", "loading the model"),
    (training, "save_trained", "saving the checkpoint"),
    (training, "verify_saved", "reading the checkpoint back"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--axis", default="ffn")
    arguments = parser.parse_args()
    plain, _ = step(arguments.rows, arguments.axis, profiled=False)
    seconds, events = step(arguments.rows, arguments.axis, profiled=True)
    show(
        {
            "rows": arguments.rows,
            "axis": arguments.axis,
            "processor_seconds": plain,
            "share_of_step": shares(plain),
            "distill_profiled_over_plain": seconds["distill"] / plain["distill"],
        }
        | inside(events)
    )


def step(rows: int, axis: str, profiled: bool) -> tuple[dict[str, float], list[FunctionEvent]]:
    """Make the first step along an axis. Returns the processor seconds of each part, and what the profiler saw."""
    materials = sample_materials(distillation__rows=str(rows))
    removed = materials.plan.stage(axis).removals()[0]
    seconds: dict[str, float] = {}
    scores = timed(seconds, "importance", lambda: importance(materials, materials.original)).scored.scores
    pruned = timed(
        seconds, "prune", lambda: prune(materials, materials.original, "language", axis, removed, scores).checkpoint
    )
    events: list[FunctionEvent] = []
    if profiled:
        with labelled(), profile(activities=[ProfilerActivity.CPU]) as profiler:
            found = timed(seconds, "distill", lambda: distill(materials, pruned))
        events = list(profiler.events() or [])
    else:
        found = timed(seconds, "distill", lambda: distill(materials, pruned))
    checkpoint = found.checkpoint
    assert checkpoint, "the loss stays finite"
    timed(seconds, "evaluate", lambda: evaluate(materials, checkpoint, "gate"))
    return seconds, events


def timed(seconds: dict[str, float], name: str, work: Callable[[], Found]) -> Found:
    begun = time.process_time()
    found = work()
    seconds[name] = time.process_time() - begun
    return found


@contextmanager
def labelled() -> Iterator[None]:
    """The profiler sees the pieces of distilling, by their names."""
    with ExitStack() as stack:
        for place, function, name in PIECES:
            stack.enter_context(patch.object(place, function, _labelled(getattr(place, function), name)))
        really = train.ahead

        def waited(*what: Any) -> Iterator[Any]:
            batches = really(*what)
            while True:
                with record_function(f"{LABEL}waiting for batches"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

        stack.enter_context(patch.object(train, "ahead", waited))
        yield


def _labelled(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def inside_its_label(*args: Any, **options: Any) -> Any:
        with record_function(LABEL + name):
            return function(*args, **options)

    return inside_its_label


def inside(events: list[FunctionEvent]) -> dict[str, Any]:
    """The share of each piece of distilling, and the three operators with the most own time, each within its piece."""
    pieces: dict[str, float] = defaultdict(float)
    operators: dict[str, float] = defaultdict(float)
    for event in events:
        above: FunctionEvent | None = event
        while above is not None and not above.name.startswith(LABEL):
            above = above.cpu_parent
        piece = above.name.removeprefix(LABEL) if above else "everything else"
        operator = "python" if event is above else event.name
        pieces[piece] += event.self_cpu_time_total
        operators[f"{piece}: {operator}"] += event.self_cpu_time_total
    largest = sorted(shares(operators).items(), key=lambda item: -item[1])[:3]
    ordered = sorted(shares(pieces).items(), key=lambda item: -item[1])
    return {"pieces": dict(ordered), "largest": dict(largest)}


def shares(times: dict[str, float]) -> dict[str, float]:
    total = sum(times.values())
    return {name: value / total for name, value in times.items()}


if __name__ == "__main__":
    main()
