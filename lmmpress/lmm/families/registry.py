"""Finds the family of a model by its config's model_type, and reads the anatomy that the family declares."""

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lmmpress.axes.cut import Cut
from lmmpress.axes.layout import TowerLayout
from lmmpress.axes.slices import Shapes
from lmmpress.errors import UserError
from lmmpress.files.own_types import OWN_PREFIX
from lmmpress.lmm.anatomy import Projector

Config = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """The place of a text model in a larger one: the prefix of its body's tensor names, and its head module."""

    body: str
    head: str


@dataclass(frozen=True)
class Declaration:
    """A family's description of one model: its towers, and the modules outside of them."""

    towers: tuple[TowerLayout, ...]
    embeddings: tuple[str, ...]
    heads: tuple[str, ...]
    projector: Projector | None = None
    image_towers: tuple[str, ...] = ()
    image_side: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A family: `declare` reads a config and the shapes of the model's tensors, at the model's place (a text family can
    also be inside BLIP-2 and LLaVA); `resize` updates a config after a cut.

    `body` is the prefix of everything but the head of a text model. `stored_as` maps prefixes of tensor names in
    checkpoint files to those in the transformers model; the first that fits is used.
    """

    model_type: str
    declare: Callable[[Config, Shapes, Place], Declaration]
    resize: Callable[[Config, Cut], Config]
    auto_class: str = "AutoModelForCausalLM"
    body: str = "model."
    stored_as: tuple[tuple[str, str], ...] = ()

    def place(self, prefix: str = "") -> Place:
        """The place of a model whose tensor names all begin with the prefix."""
        return Place(prefix + self.body, f"{prefix}lm_head")

    def in_model(self, stored: str) -> str:
        """The model's name of a tensor in a checkpoint file."""
        for before, after in self.stored_as:
            if stored.startswith(before):
                return after + stored[len(before) :]
        return stored


_families: dict[str, Family] = {}


def not_expressed(cut: Cut) -> UserError:
    """The error of a family's `resize` if its config has no setting for a cut along that axis."""
    return UserError(f"a cut along {cut.axis} of the {cut.tower} tower: the configs of this family cannot express it")


def register(family: Family) -> Family:
    """Add a family; a model_type that is already taken is refused."""
    if family.model_type in _families:
        raise ValueError(f"model_type {family.model_type!r} is registered twice")
    _families[family.model_type] = family
    return family


@lru_cache(maxsize=1)
def _load_all() -> None:
    import lmmpress.lmm.families as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def family_of(config: Config) -> Family:
    """The family of a config; UserError with the known families if it is unknown."""
    _load_all()
    model_type = str(config.get("model_type")).removeprefix(OWN_PREFIX)
    if model_type not in _families:
        raise UserError(
            f"unknown model family {model_type!r}; {_hint(model_type)}known are {', '.join(sorted(_families))}"
        )
    return _families[model_type]


def _hint(model_type: str) -> str:
    """A hint at the family that was meant, if the name is a typing mistake and not another model's or version's."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    for near in difflib.get_close_matches(model_type, _families, n=1, cutoff=0.8):
        if model_type not in CONFIG_MAPPING_NAMES and _digits(near) == _digits(model_type):
            return f"did you mean {near!r}? "
    return ""


def _digits(name: str) -> list[str]:
    return re.findall(r"\d", name)
