"""Saves attention head widths that plain configs cannot express, with a model_type and a code file of our own.

OPT, and the vision towers and Q-Former of LMMs, derive the width of a head from their hidden size. If a cut leaves
another width, the checkpoint gets a model_type of our own and contains the file that builds such a model
(`modeling_lmmpress.py`). transformers runs this file only for users who trust it (`trust_remote_code=True`). lmmpress
never runs a checkpoint's file: it uses its own copy.
"""

from functools import lru_cache
from pathlib import Path

from lmmpress.files.own_types import CLASSES, MODELING, OWN_PREFIX, class_entries, has_own_type, modeling_code
from lmmpress.lmm.families.registry import Config

_TIED_WIDTHS = ("opt", "blip_2_vision_model", "blip_2_qformer", "clip_vision_model", "siglip_vision_model")
_PARTS = ("vision_config", "qformer_config", "text_config")


def expressed(config: Config) -> Config:
    """A config in the plainest form that expresses its shapes: the family's own, or one with a model_type of ours."""
    plain = config["model_type"].removeprefix(OWN_PREFIX)
    parts = {name: _plainest(config[name]) for name in _PARTS if isinstance(config.get(name), dict)}
    config = _plainest(config | parts | {"model_type": plain})
    config.pop("auto_map", None)
    if not any(_says_own_width(part) for part in (config, *parts.values())):
        return config
    return config | class_entries(plain)


def make_known(config: Config) -> None:
    """Register our own model types with transformers in this process, if the config has one: that takes seconds."""
    if has_own_type(config):
        _make_all_known()


@lru_cache(maxsize=1)
def _make_all_known() -> None:
    import transformers

    from lmmpress.files import modeling_lmmpress

    for plain, (auto_class, config_class, model_class) in CLASSES.items():
        config = getattr(modeling_lmmpress, config_class)
        transformers.AutoConfig.register(OWN_PREFIX + plain, config)
        getattr(transformers, auto_class).register(config, getattr(modeling_lmmpress, model_class))


def ship(target: Path) -> None:
    """Write our modelling file into a checkpoint."""
    (target / MODELING).write_bytes(modeling_code())


def _plainest(config: Config) -> Config:
    """The config without `head_dim` if the hidden size implies the same value."""
    if config.get("model_type") in _TIED_WIDTHS and config.get("head_dim") is not None:
        heads, width = config["num_attention_heads"], config["hidden_size"]
        if heads * config["head_dim"] == width:
            return {key: value for key, value in config.items() if key != "head_dim"}
    return config


def _says_own_width(config: Config) -> bool:
    return config.get("model_type") in _TIED_WIDTHS and config.get("head_dim") is not None
