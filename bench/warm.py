"""Measures a warm run against a full one, for a second version of the sample's model: the sample's own, trained a
little further on other pictures.

    python bench/warm.py [--folder DIR] [--seeds 0 1 2] [--shares 0.5 1]

The first version is compressed once. Then, for each seed, the second version is compressed in full, and warm from the
run of the first version, one after the other: carrying over what that run has learned, and cut anew with each
`jumps.share`. Each is a process of its own with a store of its own. Other work on the machine changes seconds, and
processor seconds less, least with OMP_NUM_THREADS=1; both are reported. What is in DIR already is not made again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from common import show, spread

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.evaluate import Evaluated, evaluate
from lmmpress.evaluation.gate import paired_drop
from lmmpress.plan import Plan
from lmmpress.presets import preset
from lmmpress.result import Result
from lmmpress.sample import MODEL
from lmmpress.store import open_store

ROOT = Path(__file__).resolve().parent.parent
IMAGES, STEPS, RATE = 2000, 60, 2e-4
"""What the second version learns: pictures, updates, learning rate."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where runs are kept; a new folder by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 1.0])
    arguments = parser.parse_args()
    preset("sample")  # the data is generated before any clock starts
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="lmmpress-warm-"))
    folder.mkdir(parents=True, exist_ok=True)
    second = folder / "v2"
    if not second.exists():
        with redirect_stdout(sys.stderr):  # stdout has the results alone
            train_further(second)
    run(folder / "first", [])
    for seed in arguments.seeds:
        shared = [f"model={second}", f"seed={seed}"]
        run(folder / f"full-{seed}", shared)
        for name, settings in ways(arguments.shares).items():
            run(folder / f"{name}-{seed}", [*shared, f"start_from={folder / 'first'}", *settings])
    show({"second_version": {"images": IMAGES, "steps": STEPS, "rate": RATE}} | compared(folder, arguments))


def ways(shares: list[float]) -> dict[str, list[str]]:
    """The ways to compress warm that are measured, with their settings."""
    anew = {f"anew-{share:g}": ["jumps.carry=false", f"jumps.share={share}"] for share in shares}
    return {"carried": [], **anew}


def train_further(target: Path) -> None:
    """Train the sample's model further, on pictures that neither its training nor the sample's data has."""
    import torch
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    sys.path.insert(0, str(ROOT))
    from lmmpress.sample.dataset import in_memory
    from tools.sample_model.train import make_log, save, train_language

    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32)
    processor = Blip2Processor.from_pretrained(MODEL)
    log = make_log(target.parent / "train_log.jsonl")
    train, check = in_memory("train further", IMAGES), in_memory("check", 100)
    train_language(model, processor.tokenizer, train, check, log, STEPS, RATE)
    save(model, processor, target)


def run(out: Path, settings: list[str]) -> None:
    """Compress into a folder, and note how long it took beside it; nothing happens if that was done before."""
    noted = _noted(out)
    if noted.exists():
        return
    command = [sys.executable, "-m", "lmmpress.cli", "run", "--sample", "--out", str(out)]
    for setting in settings:
        command += ["--set", setting]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the run ended with status {status}")
    took = {"seconds": time.perf_counter() - begun, "processor_seconds": usage.ru_utime + usage.ru_stime}
    noted.write_text(json.dumps(took), "utf-8")
    print(f"{out.name}: {took}", file=sys.stderr, flush=True)


def _noted(out: Path) -> Path:
    """Where it is noted how long a run took; the name of its folder may have a point."""
    return out.with_name(f"{out.name}.json")


def compared(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The full runs, and for each way the warm runs beside them."""
    full = {seed: read(folder / f"full-{seed}") for seed in arguments.seeds}
    found: dict[str, Any] = {"full": [about(one) for one in full.values()]}
    for name in ways(arguments.shares):
        warm = {seed: read(folder / f"{name}-{seed}") for seed in arguments.seeds}
        pairs = [(full[seed], warm[seed]) for seed in arguments.seeds]
        found[name] = {
            "runs": [about(one) for one in warm.values()],
            "seconds_ratio": spread([w["took"]["seconds"] / f["took"]["seconds"] for f, w in pairs]),
            "processor_seconds_ratio": spread(
                [w["took"]["processor_seconds"] / f["took"]["processor_seconds"] for f, w in pairs]
            ),
            "more_lost_than_full": [more_lost(f, w) for f, w in pairs],
        }
    return found


def read(out: Path) -> dict[str, Any]:
    """A run: its result, the test answers of its model with the image of each row, and what it took."""
    result = Result.model_validate_json((out / "result.json").read_text("utf-8"))
    plan = Plan.model_validate_json((out / "plan.json").read_text("utf-8"))
    materials = Materials(plan, open_store(str(out / "store")), result.original.checkpoint, frozenset())
    answers: Evaluated = evaluate(materials, result.compressed.checkpoint, "test")
    took = json.loads(_noted(out).read_text("utf-8"))
    return {"result": result, "answers": answers, "owners": materials.facts("test").owners(), "took": took}


def about(one: dict[str, Any]) -> dict[str, Any]:
    result: Result = one["result"]
    return {
        **one["took"],
        "seconds_by_part": result.seconds_by_part,
        "original": result.original.accuracy,
        "compressed": result.compressed.accuracy,
        "drop": result.drop,
        "drop_interval": [result.drop_interval.low, result.drop_interval.high],
        "language_parameters": result.compressed.parameters_by_tower["language"],
        "steps": [f"{s.title}: {s.decision}, {s.accuracy_pruned:.4f} -> {s.accuracy:.4f}" for s in result.steps],
        "distil_seconds": [step.seconds["distill"] for step in result.steps],
    }


def more_lost(full: dict[str, Any], warm: dict[str, Any]) -> dict[str, Any]:
    """The test accuracy that the warm run lost beyond the full one, on the same rows, with its 95 % interval."""
    drop = paired_drop(full["answers"].right, warm["answers"].right, full["owners"], 0.95)
    return {"value": drop.value, "interval": [drop.interval.low, drop.interval.high]}


if __name__ == "__main__":
    main()
