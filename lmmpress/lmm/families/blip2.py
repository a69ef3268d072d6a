"""BLIP-2: a vision transformer, a Q-Former that asks it, and a language tower of any text family."""

from dataclasses import replace

from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Shapes
from lmmpress.lmm.cut import Cut
from lmmpress.lmm.declare import Attention, Ffn, TowerPlan
from lmmpress.lmm.families.registry import Config, Declaration, Family, family_of, register
from lmmpress.plan import Axis

_TIED_WIDTHS = "its config has no head width of its own: hidden_size is always heads x head width"
_BARRED = {Axis.attention: _TIED_WIDTHS, Axis.io: _TIED_WIDTHS}


def declare(config: Config, shapes: Shapes, prefix: str) -> Declaration:
    text = family_of(config["text_config"]).declare(config["text_config"], shapes, f"{prefix}language_model.")
    language = replace(text.towers[0], writers=(f"{prefix}language_projection",), config_key="text_config")
    return Declaration(
        towers=(_vision(config, prefix), _qformer(config, prefix), language),
        embeddings=text.embeddings,
        heads=text.heads,
        projector=f"{prefix}language_projection",
        image_towers=("vision", "qformer"),
        image_side=(f"{prefix}vision_model.", f"{prefix}qformer.", f"{prefix}query_tokens"),
    )


def _vision(config: Config, prefix: str) -> TowerPlan:
    vision, qformer = config["vision_config"], config["qformer_config"]
    heads, width = vision["num_attention_heads"], vision["hidden_size"]
    crossing = range(0, qformer["num_hidden_layers"], qformer.get("cross_attention_frequency", 2))
    crossed = [f"{prefix}qformer.encoder.layer.{number}.crossattention.attention" for number in crossing]
    return TowerPlan(
        name="vision",
        blocks=f"{prefix}vision_model.encoder.layers",
        depth=vision["num_hidden_layers"],
        width=width,
        attentions=(Attention((("self_attn.qkv", 3 * heads),), (), "self_attn.projection", heads, width // heads),),
        ffns=(Ffn(("mlp.fc1",), "mlp.fc2", vision["intermediate_size"]),),
        norms=("layer_norm1", "layer_norm2"),
        final_norm=f"{prefix}vision_model.post_layernorm",
        rms=False,
        rows=tuple(f"{prefix}vision_model.embeddings.{name}_embedding" for name in ("class", "position")),
        writers=(f"{prefix}vision_model.embeddings.patch_embedding",),
        readers=tuple(f"{name}.{part}" for name in crossed for part in ("key", "value")),
        config_key="vision_config",
        inexpressible=_BARRED,
    )


def _qformer(config: Config, prefix: str) -> TowerPlan:
    qformer = config["qformer_config"]
    heads, width = qformer["num_attention_heads"], qformer["hidden_size"]

    def attention(module: str, foreign: bool) -> Attention:
        query, key, value = (f"{module}.attention.{name}" for name in ("query", "key", "value"))
        return Attention(
            query_key=((query, heads), (key, heads)),
            value=((value, heads),),
            output=f"{module}.output.dense",
            heads=heads,
            head_dim=width // heads,
            scaled=(query,),
            foreign=(key, value) if foreign else (),
        )

    return TowerPlan(
        name="qformer",
        blocks=f"{prefix}qformer.encoder.layer",
        depth=qformer["num_hidden_layers"],
        width=width,
        attentions=(attention("attention", foreign=False), attention("crossattention", foreign=True)),
        ffns=(
            Ffn(("intermediate_query.dense",), "output_query.dense", qformer["intermediate_size"]),
            Ffn(("intermediate.dense",), "output.dense", qformer["intermediate_size"]),
        ),
        norms=(
            "attention.output.LayerNorm",
            "crossattention.output.LayerNorm",
            "output_query.LayerNorm",
            "output.LayerNorm",
        ),
        final_norm=None,
        rms=False,
        outer_norms=(f"{prefix}qformer.layernorm",),
        rows=(f"{prefix}query_tokens",),
        readers=(f"{prefix}language_projection",),
        config_key="qformer_config",
        inexpressible=_BARRED,
    )


def resize(config: Config, cut: Cut) -> Config:
    key = {"vision": "vision_config", "qformer": "qformer_config", "language": "text_config"}[cut.tower]
    part = config[key]
    if cut.tower == "language":
        return config | {key: family_of(part).resize(part, cut)}
    match cut.axis:
        case Axis.block:
            return config | {key: part | {"num_hidden_layers": len(cut.keep[f"{cut.tower}.block"])}}
        case Axis.ffn:
            width = len(next(iter(cut.keep.values())))
            return config | {key: part | {"intermediate_size": width}}
    raise UserError(f"a BLIP-2 {cut.tower} tower cannot be cut along {cut.axis}: {_TIED_WIDTHS}")


register(Family("blip-2", declare, resize, auto_class="AutoModelForImageTextToText"))
