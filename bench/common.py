"""Functions that the benches share: paired ratios, peak memory, and the sample's materials."""

import argparse
import json
import os
import platform
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lmmpress.engine.materials import Materials
from lmmpress.lmm.batches import Batches, grouped
from lmmpress.plan import parse_plan
from lmmpress.presets import preset
from lmmpress.pruning.importance import answer_loss
from lmmpress.store import open_store


def paired(
    first: Callable[[], Any],
    second: Callable[[], Any],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Run the two alternately, after one warm-up round. Returns the seconds of each call, and the ratio first / second
    of each pair."""
    first(), second()
    pairs = [(_seconds(first, clock), _seconds(second, clock)) for _ in range(rounds)]
    ratios = [one / other for one, other in pairs]
    return {
        "first_seconds": spread([one for one, _ in pairs]),
        "second_seconds": spread([other for _, other in pairs]),
        "ratio": spread(ratios),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "count": len(values)}


def sample_arguments(description: str | None, runs: int) -> argparse.Namespace:
    """The arguments of a bench that runs a sample: `--preset`, its name, `--runs`, and `--set` for settings of its plan
    (`overrides`)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--preset", default="sample")
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    return parser.parse_args()


def sample_materials(**changes: str) -> Materials:
    """The materials of the sample preset, with a new store."""
    overrides = tuple(f"{key.replace('__', '.')}={value}" for key, value in changes.items())
    plan = parse_plan(preset("sample"), overrides)
    store = open_store(tempfile.mkdtemp(prefix="lmmpress-bench-"))
    return Materials(plan, store, store.add_checkpoint(Path(plan.model)))


def on_gate(materials: Materials, model: torch.nn.Module) -> dict[str, float]:
    """Cross-entropy of the answers per sample, and accuracy, on the gate split."""
    examples = materials.examples("gate")
    total = right = 0.0
    with torch.no_grad():
        for batch in Batches(examples, grouped(examples, 64), materials.features("gate")):
            logits = materials.logits(model, batch)
            total += float(answer_loss(logits, batch)) * len(batch.examples)
            right += len(batch.examples) - len(batch.owner[logits.argmax(-1) != batch.targets].unique())
    return {"loss": total / len(examples.rows), "accuracy": right / len(examples.rows)}


def rss() -> int:
    """The resident memory of this process in bytes."""
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Peak:
    """Samples resident memory while its block runs; `bytes` is the peak above the start."""

    def __enter__(self) -> "Peak":
        self.start, self.bytes, self._on = rss(), 0, True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._on:
            self.bytes = max(self.bytes, rss() - self.start)
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join()


def show(result: dict[str, Any]) -> None:
    """Print a bench's result as JSON, with a description of the machine."""
    machine = {
        "cores": os.cpu_count(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }
    print(json.dumps(result | {"machine": machine}, indent=1))


def processor() -> str:
    """The model of this machine's processor, as the system names it."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def working_seconds() -> float:
    """Seconds of work: of the processor, which do not count what runs beside; with a GPU those of the clock, once the
    GPU has done what it was given."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _seconds(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    begun = clock()
    work()
    return clock() - begun
