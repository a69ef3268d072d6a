"""The model types of our own: their names, their classes, and the one file of code that a checkpoint may hold.

Needs neither torch nor transformers. What the file is for, `lmmpress.lmm.remote_code` tells.
"""

from pathlib import Path
from typing import Any

APART = "lmmpress-"  # begins the model_type of checkpoints that plain transformers cannot express
MODELING = "modeling_lmmpress.py"
CLASSES = {
    "opt": ("AutoModelForCausalLM", "LmmpressOPTConfig", "LmmpressOPTForCausalLM"),
    "blip-2": ("AutoModelForImageTextToText", "LmmpressBlip2Config", "LmmpressBlip2ForConditionalGeneration"),
    "llava": ("AutoModelForImageTextToText", "LmmpressLlavaConfig", "LmmpressLlavaForConditionalGeneration"),
}


def is_apart(config: dict[str, Any]) -> bool:
    """Whether a checkpoint of that config needs our modelling file."""
    return str(config.get("model_type")).startswith(APART)


def says_apart(plain: str) -> dict[str, Any]:
    """What the config of our own model type for the family `plain` says of its classes."""
    auto_class, config_class, model_class = CLASSES[plain]
    module = MODELING.removesuffix(".py")
    return {
        "model_type": APART + plain,
        "architectures": [model_class],
        "auto_map": {"AutoConfig": f"{module}.{config_class}", auto_class: f"{module}.{model_class}"},
    }


def modeling_code() -> bytes:
    """This library's own copy of the modelling file."""
    return Path(__file__).with_name(MODELING).read_bytes()
