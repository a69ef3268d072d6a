"""Compares the memory that `lmmpress plan` says each part needs at least with what its task takes.

    python bench/memory.py [--width 1024] [--blocks 10] [--sample]

Every task of one step runs as a process of its own, as its pod would: on a random BLIP-2 in bfloat16 with few and small
rows, or with `--sample` on the built-in sample and its rows. MLflow is a server beside them. Memory is sampled: that of
a task's processes together, shared pages counted once, without pages of weight files that nobody has written to, which
the system drops when it needs room. Checks that are left out where memory is short are left out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
STAGE = "ffn"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--sample", action="store_true")
    parser.add_argument("--task", nargs=2, metavar=("NAME", "ARGUMENTS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        run(arguments.task[0], Path(arguments.task[1]))
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from common import show  # not above: it imports torch, which some tasks do without
    from support.mlflow_server import new_database, serving

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = sample(folder) if arguments.sample else random_model(folder, arguments.width, arguments.blocks)
        raw["distillation"]["processes"] = arguments.processes
        with serving(new_database(folder / "mlflow.db"), folder) as uri:
            os.environ["MLFLOW_TRACKING_URI"] = uri
            show(measured(raw, folder))


def measured(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """For each part the predicted and the measured megabytes, and their ratio."""
    from lmmpress import plan_sizes
    from lmmpress.plan import parse_plan

    sizes = plan_sizes(raw)
    predicted = {need.part: need.process for need in sizes.memory}
    peaks: dict[str, int] = {}
    for part, arguments in tasks(parse_plan(raw), folder):
        peaks[part] = max(peaks.get(part, 0), peak_of(part, arguments, folder))
        print(f"{part}: {predicted[part] // MIB} predicted, {peaks[part] // MIB} MB measured", file=sys.stderr)
    return {
        "parameters": [sum(size.parameters_by_tower.values()) for size in sizes],
        "parts": {
            part: {
                "predicted_mb": predicted[part] / MIB,
                "measured_mb": peak / MIB,
                "predicted_over_measured": predicted[part] / peak,
            }
            for part, peak in peaks.items()
        },
    }


def tasks(plan: Any, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tasks of a run's first step, and then those of a whole stage; their parts and arguments."""
    from support.first_task import asked_by

    for number, whole in enumerate((False, True)):
        own = plan.model_copy(update={"store": str(folder / f"store{number}")})
        yield "prepare", asked_by(own, "bench")
        run = json.loads((folder / "result.json").read_text("utf-8"))["outputs"]["run"]
        said = {"store": own.store, "run": run}
        step = said | {"stage": own.stages[0].name, "index": 0}
        if not whole:
            yield "steps", said | {"stage": own.stages[0].name}
            yield "evaluate", said | {"stage": "original"}
            for part in ("due", "importance", "prune", "distill", "evaluate", "gate"):
                yield part, step
            yield "evaluate", said | {"stage": "result"}
            yield "publish", said | {"report": str(folder / "report.html")}
        else:
            yield "stage", said | {"stage": own.stages[0].name}


def peak_of(task: str, arguments: dict[str, Any], folder: Path) -> int:
    """The most memory that the processes of a task take."""
    given = folder / "arguments.json"
    name = f"{STAGE}_prune" if task == "prune" else task
    given.write_text(json.dumps(arguments), "utf-8")
    process = subprocess.Popen([sys.executable, "-W", "ignore", __file__, "--task", name, str(given)])
    most = 0
    while process.poll() is None:
        most = max(most, memory_of_tree(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}")
    # a task of less than a second may end between two samples
    return max(most, int((folder / "memory").read_text("utf-8")))


def memory_of_tree(pid: int) -> int:
    """The bytes of a process and those that it has started. Pages of a file count once, those of weight files not."""
    changed, pages = 0, dict[str, int]()
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for each in [root, *root.children(recursive=True)]:
            anonymous, of_files = memory_of(each.pid)
            changed += anonymous
            pages |= {name: max(size, pages.get(name, 0)) for name, size in of_files.items()}
    return changed + sum(pages.values())


def memory_of(pid: int) -> tuple[int, dict[str, int]]:
    """The bytes that belong to a process alone, and those that show a file's content as it is, by file."""
    anonymous, of_files, name = 0, dict[str, int](), ""
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text("utf-8", "replace").splitlines()
    except OSError:
        return 0, {}
    for line in lines:
        key, _, value = line.partition(":")
        if "-" in key:
            name = "".join(line.split(maxsplit=5)[5:])
        elif key == "Rss":
            resident = int(value.split()[0]) * 1024
        elif key == "Anonymous":
            own = int(value.split()[0]) * 1024
            anonymous += own
            if ".safetensors" not in name:
                of_files[name] = of_files.get(name, 0) + resident - own
    return anonymous, of_files


def run(task: str, arguments: Path) -> None:
    """Make a task, without the checks that are made where there is much memory."""
    import minio  # noqa: F401 (a pod's store is in a bucket)

    from lmmpress.tasks.by_name import run_task, write_result

    if task in (f"{STAGE}_prune", "stage", "publish"):
        from lmmpress.lmm import verify

        verify._SHARE_OF_MEMORY = 0.0
    write_result(run_task(task, json.loads(arguments.read_text("utf-8"))), arguments.with_name("result.json"))
    arguments.with_name("memory").write_text(str(memory_of_tree(os.getpid())), "utf-8")


def sample(folder: Path) -> dict[str, Any]:
    from lmmpress.presets import preset

    raw = preset("sample")
    return raw | {"stages": {STAGE: {"step": 160, "max": 160}}}


def random_model(folder: Path, width: int, blocks: int) -> dict[str, Any]:
    """The plan of one step for a random model with a vision tower that is not cut."""
    import torch
    from support.data import make_processor, write_data
    from support.tiny import blip2_config, make_model, save_model, text_config

    processor = make_processor("llama")
    text = text_config(
        "llama",
        len(processor.tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=16,
        num_key_value_heads=16,
        head_dim=width // 16,
    )
    config = blip2_config(text)
    config["vision_config"] |= {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
    config["qformer_config"] |= {"encoder_hidden_size": 512}
    save_model(make_model(config).to(torch.bfloat16), folder / "model")
    processor.save_pretrained(folder / "model")
    data = write_data(folder / "data", {"score": 4, "distill": 4, "gate": 4, "test": 4})
    return {
        "model": str(folder / "model"),
        "data": str(data),
        "tolerance": {"alpha": 0.99, "allow_zero": True},
        "importance": {"batch_size": 2},
        "stages": {STAGE: {"step": width, "max": width}},
        "distillation": {"epochs": 1, "learning_rate": 1e-9, "batch_size": 4, "micro_batch_size": 2},
        "evaluation": {"batch_size": 2, "samples": 2, "latency_samples": 2},
    }


if __name__ == "__main__":
    main()
