"""Loads a checkpoint as its users will, and compares what it computes with what is expected.

    python reload.py CHECKPOINT EXPECTED.safetensors AUTO_CLASS [--trust]

Runs in a process of its own with nothing but transformers: importing lmmpress would lend the checkpoint what its users
may not have. EXPECTED holds the inputs by name and the `logits` [rows, length, vocabulary].
"""

import sys

import torch
import transformers
from safetensors.torch import load_file

TOLERANCE = 1e-4


def main(checkpoint: str, expected: str, auto_class: str, trust: bool) -> None:
    inputs = load_file(expected)
    logits = inputs.pop("logits")
    auto = getattr(transformers, auto_class)
    model = auto.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True, trust_remote_code=trust).eval()
    with torch.no_grad():
        found = model(**inputs, use_cache=False).logits.float()
    error = float((found - logits).abs().max() / logits.abs().max().clamp_min(1e-6))
    if not error <= TOLERANCE:
        sys.exit(f"its logits are off by {error:.1e} of their largest")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], trust="--trust" in sys.argv[4:])
