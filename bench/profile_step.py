"""Measures where the time of one step of the sample goes: the share of each part, and what distilling spends it on.

    python bench/profile_step.py [--rows 512] [--axis ffn]

The step is made twice, each time from the original and in a new store: plain, which gives the shares of the parts, and
with torch's profiler around `distill`. Shares of parts and of pieces are of processor time,
which other work on the machine changes little. `pieces` divide what distilling takes: the time of its thread inside of
a piece, without that of pieces inside of it; other threads, which make batches, are not counted. `largest` are
operators by their own time: the share of their piece, times that of the operator in it, which is of elapsed time, since
torch's profiler knows no other. An operator named `python` is all of a piece that is not inside of one of torch's.
Run it with OMP_NUM_THREADS=1: what other threads compute for torch is not seen.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, TypeVar
from unittest.mock import patch

import torch
from accelerate import Accelerator
from common import sample_materials, show
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from lmmpress.engine import materials as shared
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts import lesson, training
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.evaluate import evaluate
from lmmpress.engine.parts.importance import importance
from lmmpress.engine.parts.prune import prune
from lmmpress.lmm import portions

Found = TypeVar("Found")
LABEL, REST = "piece: ", "everything else"
PIECES: list[tuple[Any, str, str]] = [
    (shared, "visual_features", "filling the cache of visual features"),
    (shared, "answer_states", "filling the cache of the teacher's states"),
    (Materials, "teacher_states_of", "reading the teacher's states"),
    (Materials, "student_states", "forward pass to the head"),
    (lesson, "loss_in_portions", "both heads and the loss"),
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
    Clock.by_piece.clear()
    seconds, events = step(arguments.rows, arguments.axis, profiled=True)
    show(
        {
            "rows": arguments.rows,
            "axis": arguments.axis,
            "processor_seconds": plain,
            "share_of_step": shares(plain),
            "distill_profiled_over_plain": seconds["distill"] / plain["distill"],
        }
        | inside(events, shares(Clock.by_piece))
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
        with labelled(), profile(activities=[ProfilerActivity.CPU]) as profiler, Clock.piece(REST):
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


class Clock:
    """Which piece this thread is in, and the processor time of each piece that it has left or gone deeper from."""

    by_piece: ClassVar[dict[str, float]] = {}
    _within: ClassVar[list[str]] = []
    _since: ClassVar[float] = 0.0

    @classmethod
    @contextmanager
    def piece(cls, name: str) -> Iterator[None]:
        cls._pass_on()
        cls._within.append(name)
        try:
            with record_function(LABEL + name):
                yield
        finally:
            cls._pass_on()
            cls._within.pop()

    @classmethod
    def _pass_on(cls) -> None:
        """What has passed since the last change belongs to the innermost piece."""
        now = time.thread_time()
        if cls._within:
            cls.by_piece[cls._within[-1]] = cls.by_piece.get(cls._within[-1], 0.0) + now - cls._since
        cls._since = now


@contextmanager
def labelled() -> Iterator[None]:
    """The profiler sees the pieces of distilling, by their names."""
    with ExitStack() as stack:
        for place, function, name in PIECES:
            stack.enter_context(patch.object(place, function, _labelled(getattr(place, function), name)))
        really = portions.by_workers

        def waited(*what: Any) -> Iterator[Any]:
            batches = really(*what)
            while True:
                with Clock.piece("waiting for batches"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

        stack.enter_context(patch.object(portions, "by_workers", waited))
        yield


def _labelled(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def inside_its_label(*args: Any, **options: Any) -> Any:
        with Clock.piece(name):
            return function(*args, **options)

    return inside_its_label


def inside(events: list[FunctionEvent], pieces: dict[str, float]) -> dict[str, Any]:
    """The share of each piece of distilling, and the three operators with the most own time, each within its piece."""
    operators: dict[str, dict[str, float]] = {piece: defaultdict(float) for piece in pieces}
    for event in events:
        above: FunctionEvent | None = event
        while above is not None and not above.name.startswith(LABEL):
            above = above.cpu_parent
        piece = above.name.removeprefix(LABEL) if above else REST
        operators[piece]["python" if event is above else event.name] += event.self_cpu_time_total
    items = {
        f"{piece}: {operator}": pieces[piece] * share
        for piece, own in operators.items()
        for operator, share in (shares(own) if own else {}).items()
    }
    return {"pieces": _sorted(pieces), "largest": dict(list(_sorted(items).items())[:3])}


def _sorted(shared: dict[str, float]) -> dict[str, float]:
    return dict(sorted(shared.items(), key=lambda item: -item[1]))


def shares(times: dict[str, float]) -> dict[str, float]:
    total = sum(times.values())
    return {name: value / total for name, value in times.items()}


if __name__ == "__main__":
    main()
