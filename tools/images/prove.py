"""Tests the Dockerfile without a container engine: carries out its instructions, then runs the tasks of a pipeline.

    python -m tools.images.prove [--root DIR] [--work DIR]

The instructions are read from the Dockerfile itself (tools/images/recipe.py) and carried out in a separate root file
system (mount namespace and chroot; Linux only):

- with --root: in this directory, which replaces the base image: a bare Debian with a Python in /usr/local;
- without --root: in a root made of this machine's folders, read-only, with this interpreter's Python in /usr/local. The
  RUN of the stage `runtime`, which changes the base image's own Python, is left out.

Then our own code compiles a pipeline, and the commands of its tasks run exactly as in the compiled file: as user 65532
(if this runs as root), without network, and with everything read-only except the folders that a cluster mounts.

The environment variables VARIANT, PIP_INDEX_URL and TORCH_INDEX override the build arguments of the same names. A torch
from another index may need packages that the lock file lacks, so with TORCH_INDEX torch is installed with its
dependencies.
This interpreter needs lmmpress with its extra `kubeflow`, to compile.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tools.images.recipe import Builder, Image, Machine, building, libraries, read_argument


class Pod:
    """Runs the executors of a compiled pipeline as Kubeflow's launcher does."""

    def __init__(self, machine: Machine, image: Image) -> None:
        self.machine, self.image = machine, image
        self.pipeline: dict[str, Any] = {}

    def start(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        done = self.machine.run(
            command, self.image.environment | libraries(), folder=self.image.folder, user=self.image.user
        )
        if done.returncode:
            raise SystemExit(f"{command[:4]}\n{done.stdout[-2000:]}{done.stderr[-4000:]}\nexit code {done.returncode}")
        return done

    def task(self, component: str, given: dict[str, Any]) -> dict[str, Any]:
        """Run a component's container with its compiled command, and return its output parameters."""
        spec = self.pipeline["components"][f"comp-{component}"]
        container = self.pipeline["deploymentSpec"]["executors"][spec["executorLabel"]]["container"]
        inputs = dict(self._inputs(spec, given))
        outputs = spec.get("outputDefinitions", {})
        folder = f"kfp/outputs-{len(list(self.machine.work.glob('mounted/tmp/kfp/*')))}"
        artifacts = {
            name: {
                "artifacts": [
                    {
                        "name": name,
                        "type": about["artifactType"],
                        "uri": f"minio://mlpipeline/v2/artifacts/{component}/{name}",
                        "metadata": {},
                    }
                ]
            }
            for name, about in outputs.get("artifacts", {}).items()
        }
        parameters = {name: {"outputFile": f"/tmp/{folder}/{name}"} for name in outputs.get("parameters", {})}
        executor_input = {
            "inputs": {"parameterValues": inputs},
            "outputs": {
                "parameters": parameters,
                "artifacts": artifacts,
                "outputFile": f"/tmp/{folder}/output_metadata.json",
            },
        }
        words = [*container["command"], *container["args"]]
        begun = time.monotonic()
        self.start([json.dumps(executor_input) if word == "{{$}}" else word for word in words])
        record = json.loads((self.machine.work / "mounted/tmp" / folder / "output_metadata.json").read_text("utf-8"))
        values: dict[str, Any] = record.get("parameterValues", {})
        print(f"task {component}: {values}, {time.monotonic() - begun:.1f} s", flush=True)
        assert values.keys() == parameters.keys(), record
        assert record.get("artifacts", {}).keys() == artifacts.keys(), record
        return values

    def _inputs(self, spec: dict[str, Any], given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, about in spec["inputDefinitions"]["parameters"].items():
            if name in given:
                yield name, given[name]
            elif "defaultValue" in about:
                whole = about["parameterType"] == "NUMBER_INTEGER"
                yield name, int(about["defaultValue"]) if whole else about["defaultValue"]
            else:
                raise KeyError(name)


def compile_pipeline(target: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """Compile the pipeline of a plan, and return the arguments of its first task."""
    from kfp import compiler

    from lmmpress.pipelines.compression import compression
    from lmmpress.pipelines.start import Interface, here
    from lmmpress.plan import parse_plan
    from lmmpress.tasks.parameters import amounts_of, amounts_text, arguments_of

    plan = parse_plan(raw)
    arguments = arguments_of(plan, "proved")
    pipeline = compression(
        plan.stages, Interface({name: type(value) for name, value in arguments.items()}, arguments, here)
    )
    compiler.Compiler().compile(pipeline, str(target))
    amounts = amounts_of(plan)
    given = {name: value for name, value in arguments.items() if name not in amounts}
    return given | {
        "compiled": [stage.as_written() for stage in plan.stages],
        "amounts": amounts_text(amounts),
    }


def prove(work: Path, root: Path | None, given: dict[str, str]) -> None:
    machine = Machine(work, root)
    builder = Builder(machine, given)
    image = builder.make("lmmpress")
    assert image.user.split(":")[0] not in ("0", "root"), image.user

    if root is None:
        check = ["python3", "-m", "pip", "--python", "/opt/lmmpress/bin/python", "check"]
        lines = machine.run(check, building()).stdout.splitlines()
        assert lines, "pip prints nothing"
        lacking = [line for line in lines if not line.startswith("kfp ")]
        assert not lacking, lacking
        print("pip check: nothing is missing, except dependencies of kfp that the tasks do not import")
    pod = Pod(machine, image)
    version = pod.start(
        ["python3", "-c", "import torch, os; print(torch.__version__, os.getuid(), os.access('/', os.W_OK))"]
    )
    print(f"torch, user, may write to /: {version.stdout.strip()}")
    torch, uid, writable = version.stdout.split()
    assert torch.partition("+")[0] == read_argument(builder, "TORCH"), torch
    assert writable == "False"
    assert os.geteuid() != 0 or uid == image.user.split(":")[0]
    pod.start(image.health)
    print(f"health: {shlex.join(image.health)}: ok")
    if root:
        missing = machine.run(["/usr/local/bin/python3", "-m", "pip", "--version"], image.environment)
        assert "No module named pip" in missing.stderr, missing
        for tool in ("pip", "cc", "gcc", "make", "ld"):
            assert machine.run(["sh", "-c", f"command -v {tool}"], image.environment).returncode, tool
        print("no pip, cc, gcc, make, ld")

    sizes = {"score": 4, "distill": 16, "gate": 8, "test": 8}
    pod.start(["python3", "-c", f"from lmmpress.sample.dataset import build; build('/tmp/data', sizes={sizes})"])
    model = pod.start(["python3", "-c", "from lmmpress.sample import MODEL; print(MODEL)"]).stdout.strip()
    raw = {
        "model": model,
        "data": "/tmp/data",
        "store": "/store",
        "tolerance": {"alpha": 0.9},
        "importance": {"criterion": "magnitude"},
        "stages": {"ffn": {"step": 160, "max": 320}},
        "distillation": {"epochs": 1, "batch_size": 8},
    }
    arguments = compile_pipeline(work / "pipeline.yaml", raw)
    pod.pipeline = next(yaml.safe_load_all((work / "pipeline.yaml").read_text("utf-8")))
    prepared = pod.task("prepare", arguments)
    run = prepared["run"]
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]{8}", run), prepared
    assert prepared == {"run": run}
    stage = {"store": "/store", "run": run, "stage": "ffn"}
    assert pod.task("steps", stage)["Output"] == [0, 1]
    step = stage | {"index": 0}
    assert pod.task("due", step)["Output"] == "open"
    assert pod.task("due", step | {"index": 1})["Output"] == "closed"
    for part in ("importance", "ffn-prune"):
        pod.task(part, step)
    print("proved")


def main() -> None:
    parser = argparse.ArgumentParser("python -m tools.images.prove", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, help="a root file system that replaces the base image; it is changed")
    parser.add_argument("--work", type=Path, help="an empty folder to work in; default: a temporary one")
    options = parser.parse_args()
    given = {name: os.environ[name] for name in ("VARIANT", "PIP_INDEX_URL", "TORCH_INDEX") if os.environ.get(name)}
    root = options.root.resolve() if options.root else None
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
        prove(options.work.resolve(), root, given)
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        prove(Path(folder), root, given)


if __name__ == "__main__":
    main()
