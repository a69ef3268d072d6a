"""Llama and similar families: rotary attention, RMS norms, a gated FFN or a plain one (Arcee), grouped queries.

They differ only in what is declared here: Qwen2 (biases on queries, keys and values), Qwen3 (norms over a head's
width), Gemma (norms that add one to their weight, an embedding scaled by the root of the width) and GLM (rotary planes
of neighbouring dimensions, in a part of a head; gate and up in one tensor; GLM4 also normalises the outputs of
attention and FFN).
"""

from lmmpress.axes.cut import Cut
from lmmpress.axes.layout import Attention, Blocks, Ffn, TowerLayout
from lmmpress.axes.slices import Shapes
from lmmpress.lmm.families.registry import Config, Declaration, Family, Place, not_expressed, register
from lmmpress.lmm.rotary import head_width, keep_planes, turning_planes

_WIDTH_IN_HEADS = ("llama", "arcee")  # their configs refuse a hidden_size that is no multiple of the head count
_NEIGHBOURS_TURN = ("glm", "glm4")


def declare(config: Config, shapes: Shapes, at: Place) -> Declaration:
    kind = config["model_type"]
    heads: int = config["num_attention_heads"]
    kv_heads: int = config.get("num_key_value_heads") or heads
    first = f"{at.body}layers.0."
    fused = f"{first}mlp.gate_up_proj.weight" in shapes
    gated = f"{first}mlp.gate_proj.weight" in shapes
    norms = ("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm")
    # a norm over the head's width cancels a scaling of the query, so only the key's norm is rescaled
    normed = f"{first}self_attn.q_norm.weight" in shapes
    tied = f"{at.head}.weight" not in shapes
    scaled_embedding = kind == "gemma"
    tower = TowerLayout(
        name="language",
        width=config["hidden_size"],
        stacks=(
            Blocks(
                prefix=f"{at.body}layers",
                depth=config["num_hidden_layers"],
                attentions=(
                    Attention(
                        query_key=(("self_attn.q_proj", heads), ("self_attn.k_proj", kv_heads)),
                        value=(("self_attn.v_proj", kv_heads),),
                        output="self_attn.o_proj",
                        heads=heads,
                        head_dim=head_width(config),
                        scaled={} if normed else {"self_attn.q_proj": heads},
                        norms={"self_attn.q_norm": 0.0, "self_attn.k_norm": 0.5} if normed else {},
                        rotary="pairs" if kind in _NEIGHBOURS_TURN else "halves",
                        turning=turning_planes(config),
                    ),
                ),
                ffns=(
                    Ffn(
                        widen=("mlp.gate_up_proj",)
                        if fused
                        else ("mlp.gate_proj", "mlp.up_proj")
                        if gated
                        else ("mlp.up_proj",),
                        narrow="mlp.down_proj",
                        width=config["intermediate_size"],
                        fused=2 if fused else 1,
                    ),
                ),
                norms=norms,
                final_norm=f"{at.body}norm",
            ),
        ),
        rms=True,
        norm_shift=1.0 if kind == "gemma" else 0.0,
        rows={f"{at.body}embed_tokens.weight": 0.5 if scaled_embedding else 0.0},
        output_power=-0.5 if scaled_embedding and tied else 0.0,
        readers=(at.head,),
        stream_unit=heads if kind in _WIDTH_IN_HEADS else 1,
    )
    return Declaration((tower,), (f"{at.body}embed_tokens.",), (f"{at.head}.",))


def resize(config: Config, cut: Cut) -> Config:
    config = dict(config)
    kept = {name: len(keep) for name, keep in cut.keep.items()}
    match cut.axis:
        case "block":
            config["num_hidden_layers"] = kept["language.block"]
            if isinstance(types := config.get("layer_types"), list):
                config["layer_types"] = [types[number] for number in cut.keep["language.block"]]
        case "ffn":
            config["intermediate_size"] = kept["language.ffn.0"]
        case "attention":
            config = keep_planes(config, cut.keep["language.attention.planes"])
        case "io":
            width, before = kept["language.io"], config["hidden_size"]
            config["head_dim"] = head_width(config)
            config["hidden_size"] = width
            if "rms_norm_eps" in config:
                config["rms_norm_eps"] = config["rms_norm_eps"] * before / width
        case _:
            raise not_expressed(cut)
    return config


for _model_type in ("llama", "mistral", "arcee", "qwen2", "qwen3", "gemma", "glm", "glm4"):
    register(Family(_model_type, declare, resize))
