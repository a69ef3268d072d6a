"""From a config to an anatomy, without weights: the model is built on the meta device only to learn its shapes."""

import json
from pathlib import Path
from typing import Any

import torch

from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy, Shapes, check_slices
from lmmpress.lmm.cut import Cut, renamed_block, shapes_after
from lmmpress.lmm.declare import build_tower
from lmmpress.lmm.families.registry import family_of
from lmmpress.plan import Axis


def read_config(checkpoint: Path) -> dict[str, Any]:
    """The raw config of a checkpoint directory; UserError where there is none."""
    path = checkpoint / "config.json"
    if not path.is_file():
        raise UserError(f"{checkpoint} is no checkpoint: it has no config.json")
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    return config


def anatomy_of(config: dict[str, Any]) -> Anatomy:
    """The anatomy of the model that a raw config describes."""
    family_of(config)
    config = complete(config)
    return _declared(config, *_shapes(config, family_of(config).auto_class))


def anatomy_after(anatomy: Anatomy, cut: Cut) -> Anatomy:
    """The anatomy that a cut leaves, by arithmetic alone; UserError where the family's config cannot express it."""
    gone = {name for name in anatomy.shapes if renamed_block(anatomy, cut, name) is None}
    ties = {alias: name for alias, name in anatomy.ties.items() if name not in gone}
    return _declared(complete(resized(anatomy.config, cut, anatomy)), shapes_after(anatomy, cut), ties)


def _declared(config: dict[str, Any], shapes: Shapes, ties: dict[str, str]) -> Anatomy:
    declared = family_of(config).declare(config, shapes, "")
    anatomy = Anatomy(
        family=str(config["model_type"]),
        config=config,
        shapes=shapes,
        ties=ties,
        towers={plan.name: build_tower(plan, shapes) for plan in declared.towers},
        embeddings=declared.embeddings,
        heads=declared.heads,
        projector=declared.projector,
        image_towers=declared.image_towers,
        image_side=declared.image_side,
    )
    check_slices(anatomy)
    return anatomy


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """The config with every default that transformers would fill in, so that families need not know them."""
    from transformers import AutoConfig

    try:
        typed = AutoConfig.for_model(**config)
    except Exception as error:  # whatever a strange config makes transformers raise is the config's fault
        raise UserError(f"config.json: transformers cannot read it: {str(error).splitlines()[0]}") from None
    full: dict[str, Any] = json.loads(typed.to_json_string(use_diff=False))
    return {key: value for key, value in full.items() if not key.startswith("_")} | {
        "architectures": config.get("architectures")
    }


def resized(config: dict[str, Any], cut: Cut, anatomy: Anatomy) -> dict[str, Any]:
    """The config after a cut; UserError where the family's config cannot express it."""
    axis = anatomy.tower(cut.tower).axes[Axis(cut.axis)]
    if axis.inexpressible:
        raise UserError(
            f"the {cut.tower} tower of this {anatomy.family} model cannot be cut along {cut.axis}: {axis.inexpressible}"
        )
    return family_of(config).resize(complete(config), cut)


def build_on_meta(config: dict[str, Any], auto_class: str) -> torch.nn.Module:
    """The model of a config without any memory for its weights."""
    import transformers

    typed = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model: torch.nn.Module = getattr(transformers, auto_class).from_config(typed)
    return model


def _shapes(config: dict[str, Any], auto_class: str) -> tuple[Shapes, dict[str, str]]:
    """Shapes of the tensors that a checkpoint stores, and the names that are tied to one of them."""
    model = build_on_meta(config, auto_class)
    state = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    shapes: Shapes = {}
    ties: dict[str, str] = {}
    for name, tensor in state.items():
        if id(tensor) in first:
            ties[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            shapes[name] = tuple(tensor.shape)
    return shapes, ties
