"""Our own model types: their names, their classes, and the only file of code that a checkpoint may hold.

`lmmpress.lmm.remote_code` explains what that file is for. Needs neither torch nor transformers.
"""

from pathlib import Path
from typing import Any

OWN_PREFIX = "lmmpress-"  # prefix of the model_type of checkpoints that plain transformers cannot express
MODELING = "modeling_lmmpress.py"
CLASSES = {
    "opt": ("AutoModelForCausalLM", "LmmpressOPTConfig", "LmmpressOPTForCausalLM"),
    "blip-2": ("AutoModelForImageTextToText", "LmmpressBlip2Config", "LmmpressBlip2ForConditionalGeneration"),
    "llava": ("AutoModelForImageTextToText", "LmmpressLlavaConfig", "LmmpressLlavaForConditionalGeneration"),
}


def has_own_type(config: dict[str, Any]) -> bool:
    """Whether a checkpoint with this config needs our modelling file."""
    return str(config.get("model_type")).startswith(OWN_PREFIX)


def class_entries(plain: str) -> dict[str, Any]:
    """The config entries that name the classes of our own model type for the family `plain`."""
    auto_class, config_class, model_class = CLASSES[plain]
    module = MODELING.removesuffix(".py")
    return {
        "model_type": OWN_PREFIX + plain,
        "architectures": [model_class],
        "auto_map": {"AutoConfig": f"{module}.{config_class}", auto_class: f"{module}.{model_class}"},
    }


def modeling_code() -> bytes:
    """The bytes of the modelling file, from this library's copy."""
    return Path(__file__).with_name(MODELING).read_bytes()
