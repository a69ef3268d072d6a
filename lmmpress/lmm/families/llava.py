"""LLaVA: a CLIP or SigLIP vision tower, a two-layer projector that reads one of its last states, any text family."""

from dataclasses import replace

from lmmpress.axes.cut import Cut
from lmmpress.axes.layout import Ffn
from lmmpress.axes.slices import Shapes
from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Projector
from lmmpress.lmm.families.clip import declare_vision, resize_vision
from lmmpress.lmm.families.registry import Config, Declaration, Family, Place, family_of, register

_VISION = ("clip_vision_model", "siglip_vision_model")
_PROJECTOR = "model.multi_modal_projector"
_TOWER = "model.vision_tower."


def declare(config: Config, shapes: Shapes, at: Place) -> Declaration:
    vision = config["vision_config"]
    if vision["model_type"] not in _VISION:
        raise UserError(f"LLaVA with vision tower {vision['model_type']!r}: known are {', '.join(_VISION)}")
    _check_states(config["vision_feature_layer"], vision)
    text = config["text_config"]
    inner = family_of(text).declare(text, shapes, Place("model.language_model.", "lm_head"))
    language = replace(
        inner.towers[0],
        writers=(*inner.towers[0].writers, f"{_PROJECTOR}.linear_2"),
        hidden=(Ffn((f"{_PROJECTOR}.linear_1",), f"{_PROJECTOR}.linear_2", text["hidden_size"]),),
    )
    return Declaration(
        towers=(declare_vision(vision, shapes, _TOWER, readers=(f"{_PROJECTOR}.linear_1",)), language),
        embeddings=inner.embeddings,
        heads=inner.heads,
        projector=Projector(_PROJECTOR, listed=True),
        image_towers=("vision",),
        image_side=(_TOWER,),
    )


def resize(config: Config, cut: Cut) -> Config:
    if cut.tower == "language":
        text = config["text_config"]
        return config | {"text_config": family_of(text).resize(text, cut)}
    vision = config["vision_config"]
    changed = config | {"vision_config": resize_vision(vision, cut)}
    if cut.axis == "block":
        changed["vision_feature_layer"] = _read_states(config["vision_feature_layer"], vision, cut)
    return changed


def _check_states(layers: int | list[int], vision: Config) -> None:
    """Raise UserError if the config reads a hidden state that the vision tower does not have."""
    states = vision["num_hidden_layers"] + 1
    for layer in layers if isinstance(layers, list) else [layers]:
        if not -states <= layer < states:
            raise UserError(
                f"config.json: vision_feature_layer is {layers}, and a vision tower of {states - 1} blocks has states "
                f"{-states} to {states - 1}; one of the two is another model's"
            )


def _read_states(layers: int | list[int], vision: Config, cut: Cut) -> int | list[int]:
    """Which hidden states are read after a cut: the same ones, or the last if those were removed.

    A vision tower of n blocks has n + 1 hidden states; -2 is the output of the second-last block, so the first block
    that a cut removes is one that nothing reads.
    """
    if isinstance(layers, list):
        return [_read_state(layer, vision, cut) for layer in layers]
    return _read_state(layers, vision, cut)


def _read_state(layer: int, vision: Config, cut: Cut) -> int:
    states, left = vision["num_hidden_layers"] + 1, len(cut.keep["vision.block"]) + 1
    place = layer if layer >= 0 else states + layer
    return min(place, left - 1) - left


register(
    Family(
        "llava",
        declare,
        resize,
        auto_class="AutoModelForImageTextToText",
        stored_as=(
            ("language_model.lm_head.", "lm_head."),
            ("language_model.model.", "model.language_model."),
            ("vision_tower.vision_model.", _TOWER),
            ("vision_tower.", _TOWER),
            ("multi_modal_projector.", f"{_PROJECTOR}."),
        ),
    )
)
