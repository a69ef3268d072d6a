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
    """Where a text model stands: what the names of its body's tensors begin with, and its head module."""

    body: str
    head: str


@dataclass(frozen=True)
class Declaration:
    """What a family says of one model: its towers, and what stands around them."""

    towers: tuple[TowerLayout, ...]
    embeddings: tuple[str, ...]
    heads: tuple[str, ...]
    projector: Projector | None = None
    image_towers: tuple[str, ...] = ()
    image_side: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A family: `declare` reads a config and the shapes of the model's tensors, at the place where the model stands (a
    text family also stands inside BLIP-2 and LLaVA); `resize` writes into a config what a cut changed.

    `body` is where a text model keeps everything but its head. `stored_as` are prefixes of tensor names in checkpoint
    files with those that transformers gives them in the model, the first that fits is taken.
    """

    model_type: str
    declare: Callable[[Config, Shapes, Place], Declaration]
    resize: Callable[[Config, Cut], Config]
    auto_class: str = "AutoModelForCausalLM"
    body: str = "model."
    stored_as: tuple[tuple[str, str], ...] = ()

    def place(self, prefix: str = "") -> Place:
        """Where the model's tensors are if all their names begin with the prefix."""
        return Place(prefix + self.body, f"{prefix}lm_head")

    def in_model(self, stored: str) -> str:
        """The name in the model of a tensor that a checkpoint file holds."""
        for before, after in self.stored_as:
            if stored.startswith(before):
                return after + stored[len(before) :]
        return stored


_families: dict[str, Family] = {}


def not_expressed(cut: Cut) -> UserError:
    """What a family's `resize` raises where its config has nothing that a cut along that axis would change."""
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
    """The family of a config; UserError lists those there are."""
    _load_all()
    model_type = str(config.get("model_type")).removeprefix(OWN_PREFIX)
    if model_type not in _families:
        raise UserError(
            f"unknown model family {model_type!r}; {_hint(model_type)}known are {', '.join(sorted(_families))}"
        )
    return _families[model_type]


def _hint(model_type: str) -> str:
    """The family that was meant, where the name is a typing mistake: neither another model's nor another version's."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    for near in difflib.get_close_matches(model_type, _families, n=1, cutoff=0.8):
        if model_type not in CONFIG_MAPPING_NAMES and _digits(near) == _digits(model_type):
            return f"did you mean {near!r}? "
    return ""


def _digits(name: str) -> list[str]:
    return re.findall(r"\d", name)
