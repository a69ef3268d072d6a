"""Loads a checkpoint as its users will, and compares its logits with the expected ones.

    python reload.py CHECKPOINT EXPECTED.safetensors AUTO_CLASS [--trust]

Runs in a separate process that imports only transformers: with lmmpress imported, a checkpoint could load that fails
without it. EXPECTED holds the inputs by name and the `logits` [rows, length, vocabulary].
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
        computed = model(**inputs, use_cache=False).logits.float()
    error = float((computed - logits).abs().max() / logits.abs().max().clamp_min(1e-6))
    if not error <= TOLERANCE:
        sys.exit(f"its logits differ by {error:.1e} of the largest logit")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], trust="--trust" in sys.argv[4:])
