"""For platform teams: what a plan asks of a cluster, before anything is submitted. Needs no cluster.

python examples/platform_team.py PLAN CLUSTER PIPELINE

Compiles PLAN for the cluster profile CLUSTER into the file PIPELINE, and shows from that file what each pod gets.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

LMMPRESS = [sys.executable, "-m", "lmmpress.cli"]


def compile_pipeline(asked: argparse.Namespace) -> None:
    """What `lmmpress compile` does and warns of; its errors name the line of the plan or the profile."""
    names = [str(asked.plan), "--cluster", str(asked.cluster), "--granularity", asked.granularity]
    done = subprocess.run([*LMMPRESS, "compile", *names, "-o", str(asked.pipeline)], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def pod_of(executor: dict[str, Any], settings: dict[str, Any]) -> tuple[str, ...]:
    """GPUs, CPUs, memory, nodes, Secrets and the longest time of one task's pods."""
    resources = executor["container"].get("resources", {})
    gpus = resources.get("accelerator", {})
    nodes = settings.get("nodeSelector", {}).get("labels", {})
    memory = [resources.get(key, "-") for key in ("resourceMemoryRequest", "resourceMemoryLimit")]
    seconds = settings.get("activeDeadlineSeconds")
    return (
        f"{gpus['resourceCount']} x {gpus['resourceType']}" if gpus else "-",
        resources.get("resourceCpuRequest", "-"),
        " to ".join(memory),
        ", ".join(f"{key}={value}" for key, value in nodes.items()) or "any",
        ", ".join(secret["secretName"] for secret in settings.get("secretAsEnv", [])) or "-",
        f"{seconds} s" if seconds else "-",
    )


def show(rows: Iterable[tuple[str, ...]]) -> None:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("cluster", type=Path)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--granularity", choices=["step", "stage"], default="step")
    asked = parser.parse_args()
    compile_pipeline(asked)

    # Kubeflow's form: a document of tasks, and a document of what only Kubernetes knows
    spec, platform = yaml.safe_load_all(asked.pipeline.read_text("utf-8"))
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors = spec["deploymentSpec"]["executors"]
    print("\npods:")
    head = ("task", "GPUs", "CPUs", "memory", "nodes", "Secrets", "at most")
    pods = [
        (name.removeprefix("exec-"), *pod_of(executor, settings.get(name, {}))) for name, executor in executors.items()
    ]
    show([head, *pods])
    print("\nimages:", *sorted({executor["container"]["image"] for executor in executors.values()}))

    print("\nparameters, which people change when they start the pipeline:")
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    show((name, str(one.get("defaultValue", "asked for at the start"))) for name, one in parameters.items())

    same = f"{asked.plan} --cluster {asked.cluster}"
    print("\nwith a cluster:")
    print(f"  lmmpress doctor --cluster {asked.cluster} --plan {asked.plan}")
    print(f"  lmmpress submit {same} --granularity {asked.granularity} --wait")
    print("without one, the same tasks on this machine:")
    print(f"  lmmpress run {asked.plan} --engine kfp-local --granularity {asked.granularity} --out OUT")


if __name__ == "__main__":
    main()
