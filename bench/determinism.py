"""Measures how far distillation differs between processors: python bench/determinism.py [--quick]

One machine simulates several: environment variables limit the instructions that torch, oneDNN and MKL use. Each setting
runs in a separate process. The output is JSON with the largest difference from the first setting:

exact    the run that test_distillation.py records: float64, equal initial bits, 18 updates; losses and weights
run      a small run of the sample, distilled in float32: decisions, losses of each step, and digests of checkpoints

docs/determinism.md has the figures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SETTINGS: dict[str, dict[str, str]] = {
    "this processor's": {},
    "the same again": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "SSE": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "MKL_CBWR=COMPATIBLE": {"MKL_CBWR": "COMPATIBLE"},
    "two threads": {"THREADS": "2"},
}


def exact() -> dict[str, Any]:
    """The loss that test_distillation.py records, and the sum of each weight after distillation."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.data import make_processor, write_data
    from support.exact_distillation import ROWS, SETTINGS, distil, exact_values
    from support.tiny import config_of, make_model, save_model

    from lmmpress.data import read_split
    from lmmpress.lmm.checkpoint import read_checkpoint
    from lmmpress.lmm.examples import encode
    from lmmpress.settings.distillation import Distillation

    use_threads()
    with tempfile.TemporaryDirectory() as folder:
        processor, checkpoint = make_processor("opt"), Path(folder) / "model"
        save_model(make_model(config_of("blip2-opt", len(processor.tokenizer))), checkpoint)
        data = write_data(Path(folder) / "data", {"score": 8, "distill": 24})
        split = read_split(data, "distill", ROWS)
        examples = encode(split, processor, read_checkpoint(checkpoint).config)
        student, teacher = exact_values(checkpoint, 1), exact_values(checkpoint, 2)
        losses = distil((student, teacher, examples), Distillation(**SETTINGS))
    return {"losses": losses, "weights": [value.double().sum().item() for value in student.state_dict().values()]}


def use_threads() -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("THREADS", "1")))


def run() -> dict[str, Any]:
    """Decisions, losses and digests of a short run of the sample."""
    from lmmpress import compress
    from lmmpress.plan import parse_plan
    from lmmpress.presets import preset
    from lmmpress.sample.dataset import build

    use_threads()
    with tempfile.TemporaryDirectory() as folder:
        raw = preset("sample")
        raw["data"] = str(build(Path(folder) / "data", sizes={"score": 40, "distill": 400, "gate": 60, "test": 8}))
        raw["stages"] = {
            "block": {"step": 6, "max": 6},
            "ffn": {"step": 160, "max": 160},
            "io": {"step": 24, "max": 24},
        }
        raw["evaluation"] = {"batch_size": 16, "samples": 8, "latency_samples": 2}
        raw["tolerance"] |= {"alpha": 0.9}
        steps = compress(parse_plan(raw), Path(folder) / "out", recorder=None).steps
    return {
        "decisions": [step.decision for step in steps],
        "accuracies": [step.accuracy for step in steps],
        "losses": [loss for step in steps for loss in step.loss],
        "digests": [step.checkpoint for step in steps],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only what takes seconds: `exact`")
    parser.add_argument("--one", choices=["exact", "run"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps({"exact": exact, "run": run}[args.one]()))
        return
    differences: dict[str, dict[str, Any]] = {}
    for what in ["exact"] if args.quick else ["exact", "run"]:
        first: dict[str, Any] | None = None
        for name, environment in SETTINGS.items():
            command = [sys.executable, "-W", "ignore", __file__, "--one", what]
            done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            first = first or found
            differences.setdefault(what, {})[name] = compared(first, found)
    print(json.dumps(differences, indent=1))


def compared(first: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """How many values are equal, and the largest difference of numbers: relative for losses, absolute otherwise."""
    differences: dict[str, Any] = {}
    for key, values in found.items():
        pairs = list(zip(first[key], values, strict=True))
        if all(isinstance(value, float) for value in values):
            differences[key] = max(abs(a - b) / (abs(a) if key == "losses" else 1) for a, b in pairs)
        else:
            differences[key] = f"{sum(a == b for a, b in pairs)} of {len(pairs)} equal"
    return differences


if __name__ == "__main__":
    main()
