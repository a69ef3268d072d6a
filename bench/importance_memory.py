"""Measures the memory of each accumulation: the peak above the model itself, in units of the model's weights.

    python bench/importance_memory.py [--width 768]

Every setting runs in a separate process, since memory that a process has used before hides its later needs. The model
is a random Llama whose weights are much larger than the activations of its short rows. `bare` is forward and backward
with all gradients kept, as in training without the optimiser. With a GPU it is the GPU's memory that is measured.
"""

import argparse
import json
import resource
import subprocess
import sys

import torch
from common import rss, show

from lmmpress.lmm.batches import Batch
from lmmpress.lmm.portions import Portions
from lmmpress.lmm.read_anatomy import anatomy_of
from lmmpress.pruning.importance import answer_loss, score
from lmmpress.settings.importance import Importance

SETTINGS = {
    "bare": None,
    "dataset, 1 pass": {"accumulation": "dataset"},
    "dataset, 1 pass, no reliability": {"accumulation": "dataset", "reliability": False},
    "dataset, 4 passes": {"accumulation": "dataset", "passes": 4},
    "batch": {"accumulation": "batch"},
    "sample": {"accumulation": "sample"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--only", choices=SETTINGS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.width)))
        return
    command = [sys.executable, __file__, "--width", str(arguments.width), "--only"]
    found = {
        name: json.loads(
            subprocess.run([*command, name], capture_output=True, check=True, text=True, encoding="utf-8").stdout
        )
        for name in SETTINGS
    }
    show(found)


def measure(name: str, width: int) -> dict[str, float]:
    """The megabytes of the weights, and the peak memory of scoring above them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=12, vocab_size=500)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = LlamaForCausalLM(config).eval().to(device)
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    size = 1 if name == "sample" else 2
    batches = [batch(size, number).to(device) for number in range(4)]

    def loss(one: Batch) -> torch.Tensor:
        logits = model(**one.inputs, use_cache=False).logits
        return answer_loss(logits[one.where], one)

    with torch.no_grad():
        loss(batches[0])  # so that the libraries allocate their own buffers before the measurement
    before = torch.cuda.memory_allocated() if device.type == "cuda" else rss()
    settings = SETTINGS[name]
    if settings is None:
        for one in batches:
            loss(one).backward()
    else:
        anatomy = anatomy_of(config.to_dict())
        made = Portions([[number] * size for number in range(len(batches))], lambda rows: batches[rows[0]])
        score(model, anatomy, made, size * len(batches), loss, Importance(**settings), torch.Generator())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = (torch.cuda.max_memory_allocated() if device.type == "cuda" else most) - before
    return {"weights_mb": weights / 2**20, "peak_mb": peak / 2**20, "peak_over_weights": peak / weights}


def batch(size: int, seed: int) -> Batch:
    """Random rows of eight tokens; the last two are the answer."""
    ids = torch.randint(0, 500, (size, 8), generator=torch.Generator().manual_seed(seed))
    where = torch.zeros_like(ids, dtype=torch.bool)
    where[:, 5:7] = True
    owner = torch.arange(size).repeat_interleave(2)
    return Batch(list(range(size)), {"input_ids": ids}, where, ids[:, 6:8].reshape(-1), owner, torch.arange(2 * size))


if __name__ == "__main__":
    main()
