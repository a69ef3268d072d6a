"""Untrusted content of a checkpoint: code that leaves a mark if it runs, and configs that request it."""

import json
from pathlib import Path

from lmmpress.files.own_types import MODELING
from support.files import edit_json

FOREIGN = (
    "custom_generate/generate.py",
    "evil.py",
    "torch.py",
    "json.py",
    "sitecustomize.py",
    ".env",
    "model.ckpt",
    "weights.pickle",
    "model.joblib",
    "sub.npy",
    "flax_model.msgpack",
    "tf_model.h5",
    "pytorch_model.bin",
    "consolidated.safetensors",
    "LICENSE.pkl",
    "notes",
    "additional_chat_templates/evil.py",
    MODELING,
)


def add_foreign(checkpoint: Path) -> None:
    """Add untrusted files to a checkpoint: code that leaves a mark if it runs, and pickles."""
    for name in FOREIGN:
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_text(
            f"open({str(checkpoint.parent / 'ran')!r}, 'w').close()\ndef generate(): ...\n", "utf-8"
        )


def point_at_code(checkpoint: Path) -> None:
    """Let every config request the code in evil.py, on every level."""
    names = {
        f"Auto{kind}": "evil.X" for kind in ("Config", "Model", "ModelForImageTextToText", "Tokenizer", "Processor")
    }
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    for part in (config, config["text_config"], config["vision_config"]):
        part["auto_map"] = names
    config["text_config"]["attn_implementation"] = "evil/kernel"
    (checkpoint / "config.json").write_text(json.dumps(config), "utf-8")
    others = {"custom_generate": "evil.py", "fast_tokenizer_files": ["/evil/tokenizer.4.0.0.json"]}
    for name in ("tokenizer", "processor", "preprocessor", "generation"):
        edit_json(checkpoint / f"{name}_config.json", auto_map=names, init_inputs=["/evil"], **others)
