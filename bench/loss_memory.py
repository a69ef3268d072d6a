"""Measures the memory that Eq. 5 takes for many answer positions and a large vocabulary, whole and in portions.

    python bench/loss_memory.py [--positions 2048] [--vocabulary 32000] [--width 256] [--portion 16777216]

Both ways compute the same gradients of a head, each in a process of its own, since memory that a process has used
before hides its later needs. Memory is the peak above the start, in units of one tensor of positions times vocabulary
in float32; the ratio is of processor time.
"""

import argparse
import json
import subprocess
import sys
import time

import torch
from common import Peak, show, spread

from lmmpress.distillation.loss import States, loss_in_portions
from lmmpress.settings.distillation import Distillation

WAYS = ("whole", "in portions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in {"positions": 2048, "vocabulary": 32000, "width": 256, "portion": 1 << 24, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--only", choices=WAYS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way, each in found.items():
            command = [sys.executable, *sys.argv, "--only", way]
            printed = subprocess.run(command, capture_output=True, check=True, text=True, encoding="utf-8").stdout
            each.append(json.loads(printed))
    whole, portions = found.values()
    ratios = [one["seconds"] / other["seconds"] for one, other in zip(portions, whole, strict=True)]
    peaks = {way: {"peak_over_logits": spread([one["peak"] for one in each])} for way, each in found.items()}
    sizes = {name: getattr(arguments, name) for name in ("positions", "vocabulary", "width", "portion")}
    show(sizes | peaks | {"seconds_in_portions_over_whole": spread(ratios)})


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    torch.manual_seed(0)
    positions, width, vocabulary = arguments.positions, arguments.width, arguments.vocabulary
    student, teacher = (torch.nn.Linear(width, vocabulary, bias=False) for _ in range(2))
    own, other = torch.randn(positions, width, requires_grad=True), torch.randn(positions, width)
    targets, settings = torch.randint(vocabulary, (positions,)), Distillation()
    most = positions * vocabulary if arguments.only == "whole" else arguments.portion
    begun = time.process_time()
    with Peak() as peak:
        head = States(own, student, tuple(student.parameters()))
        loss_in_portions(head, States(other, teacher), targets, settings, most).backward()
    return {"peak": peak.bytes / (4 * positions * vocabulary), "seconds": time.process_time() - begun}


if __name__ == "__main__":
    main()
