"""Compares applying a cut to a checkpoint of a gigabyte with copying the checkpoint, both flushed to disk.

python bench/cut.py [--gigabytes 1] [--rounds 5]
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import torch
from common import Peak, paired, show

from lmmpress.lmm.checkpoint import apply_cuts, read_checkpoint
from lmmpress.pruning.choose import choose


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = make(folder / "source", arguments.gigabytes)
        size = sum(path.stat().st_size for path in source.iterdir())
        result: dict[str, object] = {"gigabytes": size / 1e9}
        anatomy = read_checkpoint(source)
        for axis, body in anatomy.towers["language"].axes.items():
            removed = max(body.width // 8 // body.unit, 1) * body.unit if axis != "block" else 2
            groups = {group.name: torch.rand(group.size) for group in body.groups}
            cut = choose(anatomy, "language", axis, removed, groups)

            def cutting() -> None:
                shutil.rmtree(folder / "cut", ignore_errors=True)
                apply_cuts(source, read_checkpoint(source), [cut], folder / "cut")

            def copying() -> None:
                shutil.rmtree(folder / "copy", ignore_errors=True)
                shutil.copytree(source, folder / "copy")
                for path in (folder / "copy").iterdir():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())

            ratio = paired(cutting, copying, arguments.rounds)["ratio"]
            with Peak() as peak:
                cutting()
            result[axis] = {
                "removed": f"{removed} of {body.width}",
                "cut_over_copy": ratio,
                "peak_mb": peak.bytes / 2**20,
            }
    show(result)


def make(folder: Path, gigabytes: float) -> Path:
    """Write a random bfloat16 Llama checkpoint of about this size."""
    from transformers import LlamaConfig, LlamaForCausalLM

    width, ffn = 2048, 5632
    block = 2 * (4 * width * width + 3 * width * ffn)
    depth = max(3, round(gigabytes * 1e9 / block))
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=ffn,
        num_hidden_layers=depth,
        num_attention_heads=16,
        head_dim=128,
        vocab_size=1000,
    )
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder, max_shard_size="500MB")
    return folder


if __name__ == "__main__":
    main()
