"""From a config to an anatomy, without weights: the model is built on the meta device only to learn its shapes."""

import json
from pathlib import Path
from typing import Any

import torch

from lmmpress.axes import axis_named
from lmmpress.axes.cut import Cut
from lmmpress.axes.slices import Shapes
from lmmpress.errors import UserError
from lmmpress.files.allow_list import clean_config
from lmmpress.lmm.anatomy import Anatomy, check_slices
from lmmpress.lmm.bounds import check_bounds
from lmmpress.lmm.build_towers import build_tower
from lmmpress.lmm.families.registry import family_of
from lmmpress.lmm.remote_code import expressed, make_known
from lmmpress.lmm.tensor_cut import TensorCut, check_cut, shapes_after


def read_config(checkpoint: Path) -> dict[str, Any]:
    """The config of a checkpoint directory as it stands, without what names code; UserError where there is none."""
    return clean_config(checkpoint)


def anatomy_of(config: dict[str, Any]) -> Anatomy:
    """The anatomy of the model that a raw config describes."""
    config = complete(config)
    shapes, ties = _shapes(config, family_of(config).auto_class)
    try:
        return _declared(config, shapes, ties)
    except UserError:
        raise
    except Exception as error:  # whatever numbers a strange config has for a family, they are the config's fault
        told = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"config.json describes no {config['model_type']} model that can be cut: {told}") from None


def anatomy_after(anatomy: Anatomy, cut: Cut) -> Anatomy:
    """The anatomy that a cut leaves, by arithmetic alone; UserError where the family's config cannot express it."""
    plan = TensorCut(anatomy, cut.keep)
    ties = {alias: name for alias, name in anatomy.ties.items() if plan.name(name) is not None}
    return _declared(complete(resized(anatomy.config, cut, anatomy)), shapes_after(anatomy, cut.keep), ties)


def config_after(anatomy: Anatomy, cuts: list[Cut]) -> dict[str, Any]:
    """The config that several cuts in turn leave, in the plainest form that says its shape."""
    for cut in cuts[:-1]:
        anatomy = anatomy_after(anatomy, cut)
    return expressed(resized(anatomy.config, cuts[-1], anatomy)) if cuts else anatomy.config


def _declared(config: dict[str, Any], shapes: Shapes, ties: dict[str, str]) -> Anatomy:
    family = family_of(config)
    declared = family.declare(config, shapes, family.place())
    anatomy = Anatomy(
        family=family.model_type,
        config=config,
        shapes=shapes,
        ties=ties,
        towers={layout.name: build_tower(layout, shapes) for layout in declared.towers},
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

    family_of(config)
    check_bounds(config)
    make_known(config)
    try:
        typed = AutoConfig.for_model(**config)
    except Exception as error:  # whatever a strange config makes transformers raise is the config's fault
        raise UserError(f"config.json: transformers cannot read it{_made_by(config)}: {first_line(error)}") from None
    full: dict[str, Any] = json.loads(typed.to_json_string(use_diff=False))
    kept = {key: config[key] for key in ("architectures", "auto_map") if key in config}
    return {key: value for key, value in full.items() if not key.startswith("_")} | kept


def _made_by(config: dict[str, Any]) -> str:
    """A hint where a config was written by a transformers newer than this one."""
    import transformers
    from packaging.version import InvalidVersion, Version

    try:
        if Version(str(config.get("transformers_version"))) > Version(transformers.__version__):
            return (
                f" (it was written by transformers {config['transformers_version']}, this is "
                f"{transformers.__version__}: upgrade transformers)"
            )
    except InvalidVersion:
        pass
    return ""


def first_line(error: BaseException) -> str:
    """What an exception says, in one line: its first, with the second where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def resized(config: dict[str, Any], cut: Cut, anatomy: Anatomy) -> dict[str, Any]:
    """The config after a cut; UserError where the family's config cannot express it."""
    check_cut(anatomy, cut)
    body, own = anatomy.axis(cut.tower, cut.axis), axis_named(cut.axis).resize
    if body.inexpressible:
        raise UserError(
            f"the {cut.tower} tower of this {anatomy.family} model cannot be cut along {cut.axis}: {body.inexpressible}"
        )
    resize = family_of(config).resize
    try:
        return own(complete(config), cut, resize) if own else resize(complete(config), cut)
    except (LookupError, StopIteration):
        raise UserError(f"this cut along {cut.axis} was made for another model: it names none of its groups") from None


def build_on_meta(config: dict[str, Any], auto_class: str) -> torch.nn.Module:
    """The model of a config without any memory for its weights."""
    import transformers

    make_known(config)
    typed = transformers.AutoConfig.for_model(**config)
    try:
        with torch.device("meta"):
            model: torch.nn.Module = getattr(transformers, auto_class).from_config(typed)
    except Exception as error:  # whatever a strange config makes transformers raise is the config's fault
        raise UserError(
            f"config.json: transformers cannot build its model{_made_by(config)}: {first_line(error)}"
        ) from None
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
