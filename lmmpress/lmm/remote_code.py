"""What plain configs have no word for, and how a checkpoint says it all the same.

OPT and the vision towers and Q-Former of LMMs derive the width of a head from their hidden size. Where a cut leaves
another width, the checkpoint gets a model_type of its own and carries the file that knows how to build it
(`modeling_lmmpress.py`), which transformers runs only for users who trust it (`trust_remote_code=True`). lmmpress never
runs a checkpoint's file: it uses its own copy.
"""

from functools import lru_cache
from pathlib import Path

from lmmpress.files.own_types import APART, CLASSES, MODELING, is_apart, modeling_code, says_apart
from lmmpress.lmm.families.registry import Config

_TIED_WIDTHS = ("opt", "blip_2_vision_model", "blip_2_qformer", "clip_vision_model", "siglip_vision_model")
_PARTS = ("vision_config", "qformer_config", "text_config")


def expressed(config: Config) -> Config:
    """A config in the plainest form that says its shape: the family's own, or with a model_type of ours."""
    plain = config["model_type"].removeprefix(APART)
    parts = {name: _plainest(config[name]) for name in _PARTS if isinstance(config.get(name), dict)}
    config = _plainest(config | parts | {"model_type": plain})
    config.pop("auto_map", None)
    if not any(_says_own_width(part) for part in (config, *parts.values())):
        return config
    return config | says_apart(plain)


def make_known(config: Config) -> None:
    """Tell this process's transformers of the model types of our own, if the config is of one: that takes seconds."""
    if is_apart(config):
        _make_all_known()


@lru_cache(maxsize=1)
def _make_all_known() -> None:
    import transformers

    from lmmpress.files import modeling_lmmpress

    for plain, (auto_class, config_class, model_class) in CLASSES.items():
        config = getattr(modeling_lmmpress, config_class)
        transformers.AutoConfig.register(APART + plain, config)
        getattr(transformers, auto_class).register(config, getattr(modeling_lmmpress, model_class))


def ship(target: Path) -> None:
    """Put the file that builds such models into a checkpoint."""
    (target / MODELING).write_bytes(modeling_code())


def _plainest(config: Config) -> Config:
    """The config without a head width that its hidden size implies anyway."""
    if config.get("model_type") in _TIED_WIDTHS and config.get("head_dim") is not None:
        heads, width = config["num_attention_heads"], config["hidden_size"]
        if heads * config["head_dim"] == width:
            return {key: value for key, value in config.items() if key != "head_dim"}
    return config


def _says_own_width(config: Config) -> bool:
    return config.get("model_type") in _TIED_WIDTHS and config.get("head_dim") is not None
