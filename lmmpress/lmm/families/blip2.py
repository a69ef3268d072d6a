"""BLIP-2: a vision transformer, a Q-Former that asks it, and a language tower of any text family."""

from dataclasses import replace

from lmmpress.axes.cut import Cut
from lmmpress.axes.layout import Attention, Blocks, Ffn, TowerLayout, separate
from lmmpress.axes.slices import Shapes
from lmmpress.lmm.anatomy import Projector
from lmmpress.lmm.families.clip import resize_vision
from lmmpress.lmm.families.registry import Config, Declaration, Family, Place, family_of, not_expressed, register
from lmmpress.lmm.rotary import head_width


def declare(config: Config, shapes: Shapes, at: Place) -> Declaration:
    family = family_of(config["text_config"])
    text = family.declare(config["text_config"], shapes, family.place(f"{at.body}language_model."))
    language = replace(text.towers[0], writers=(*text.towers[0].writers, f"{at.body}language_projection"))
    return Declaration(
        towers=(_vision(config, at.body), _qformer(config, at.body), language),
        embeddings=text.embeddings,
        heads=text.heads,
        projector=Projector(f"{at.body}language_projection"),
        image_towers=("vision", "qformer"),
        image_side=(f"{at.body}vision_model.", f"{at.body}qformer.", f"{at.body}query_tokens"),
    )


def _vision(config: Config, prefix: str) -> TowerLayout:
    vision, qformer = config["vision_config"], config["qformer_config"]
    heads, width = vision["num_attention_heads"], vision["hidden_size"]
    crossing = range(0, qformer["num_hidden_layers"], qformer.get("cross_attention_frequency", 2))
    crossed = [f"{prefix}qformer.encoder.layer.{number}.crossattention.attention" for number in crossing]
    fused = Attention(
        query_key=(("self_attn.qkv", 3 * heads),),
        value=(),
        output="self_attn.projection",
        heads=heads,
        head_dim=head_width(vision),
        scaled={"self_attn.qkv": heads},
    )
    return TowerLayout(
        name="vision",
        width=width,
        stacks=(
            Blocks(
                prefix=f"{prefix}vision_model.encoder.layers",
                depth=vision["num_hidden_layers"],
                attentions=(fused,),
                ffns=(Ffn(("mlp.fc1",), "mlp.fc2", vision["intermediate_size"]),),
                norms=("layer_norm1", "layer_norm2"),
                final_norm=f"{prefix}vision_model.post_layernorm",
            ),
        ),
        rms=False,
        rows={f"{prefix}vision_model.embeddings.{name}_embedding": 0.0 for name in ("class", "position")},
        writers=(f"{prefix}vision_model.embeddings.patch_embedding",),
        readers=tuple(f"{name}.{part}" for name in crossed for part in ("key", "value")),
    )


def _qformer(config: Config, prefix: str) -> TowerLayout:
    qformer = config["qformer_config"]
    heads, width = qformer["num_attention_heads"], qformer["hidden_size"]

    def attention(module: str, foreign: bool) -> Attention:
        query, key, value = (f"{module}.attention.{name}" for name in ("query", "key", "value"))
        crossed = (key, value) if foreign else ()
        return separate(query, key, value, f"{module}.output.dense", heads, head_width(qformer), crossed)

    return TowerLayout(
        name="qformer",
        width=width,
        stacks=(
            Blocks(
                prefix=f"{prefix}qformer.encoder.layer",
                depth=qformer["num_hidden_layers"],
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
            ),
        ),
        rms=False,
        post_norm=True,
        outer_norms=(f"{prefix}qformer.layernorm",),
        rows={f"{prefix}query_tokens": 0.0},
        readers=(f"{prefix}language_projection",),
    )


def resize(config: Config, cut: Cut) -> Config:
    if cut.tower == "language":
        text = config["text_config"]
        return config | {"text_config": family_of(text).resize(text, cut)}
    if cut.tower == "qformer":
        return config | {"qformer_config": _resize_qformer(config["qformer_config"], cut)}
    changed = config | {"vision_config": resize_vision(config["vision_config"], cut)}
    if cut.axis == "io":
        changed["qformer_config"] = config["qformer_config"] | {"encoder_hidden_size": len(cut.keep["vision.io"])}
    return changed


def _resize_qformer(config: Config, cut: Cut) -> Config:
    kept = {name: len(keep) for name, keep in cut.keep.items()}
    match cut.axis:
        case "block":
            return config | {"num_hidden_layers": kept["qformer.block"]}
        case "ffn":
            return config | {"intermediate_size": next(iter(kept.values()))}
        case "attention":
            return config | {"head_dim": next(iter(kept.values()))}
        case "io":
            return config | {"hidden_size": kept["qformer.io"], "head_dim": head_width(config)}
        case _:
            raise not_expressed(cut)


register(Family("blip-2", declare, resize, auto_class="AutoModelForImageTextToText", body=""))
