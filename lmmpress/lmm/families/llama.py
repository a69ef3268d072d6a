"""Llama and its kin: rotary attention, RMS norms, a gated FFN (Llama, Mistral) or a plain one (Arcee)."""

from lmmpress.lmm.anatomy import Shapes
from lmmpress.lmm.cut import Cut
from lmmpress.lmm.declare import Attention, Ffn, TowerPlan
from lmmpress.lmm.families.registry import Config, Declaration, Family, register
from lmmpress.lmm.rotary import keep_planes
from lmmpress.plan import Axis

_WIDTH_IN_HEADS = ("llama", "arcee")  # their configs refuse a hidden_size that the head count does not divide


def declare(config: Config, shapes: Shapes, prefix: str) -> Declaration:
    heads: int = config["num_attention_heads"]
    kv_heads: int = config.get("num_key_value_heads") or heads
    head_dim: int = config.get("head_dim") or config["hidden_size"] // heads
    depth: int = config["num_hidden_layers"]
    gated = depth > 0 and f"{prefix}model.layers.0.mlp.gate_proj.weight" in shapes
    tower = TowerPlan(
        name="language",
        blocks=f"{prefix}model.layers",
        depth=depth,
        width=config["hidden_size"],
        attentions=(
            Attention(
                query_key=(("self_attn.q_proj", heads), ("self_attn.k_proj", kv_heads)),
                value=(("self_attn.v_proj", kv_heads),),
                output="self_attn.o_proj",
                heads=heads,
                head_dim=head_dim,
                scaled=("self_attn.q_proj",),
                rotary="halves",
            ),
        ),
        ffns=(
            Ffn(
                widen=("mlp.gate_proj", "mlp.up_proj") if gated else ("mlp.up_proj",),
                narrow="mlp.down_proj",
                width=config["intermediate_size"],
            ),
        ),
        norms=("input_layernorm", "post_attention_layernorm"),
        final_norm=f"{prefix}model.norm",
        rms=True,
        rows=(f"{prefix}model.embed_tokens.weight",),
        readers=(f"{prefix}lm_head",),
        stream_unit=heads if config["model_type"] in _WIDTH_IN_HEADS else 1,
    )
    return Declaration((tower,), (f"{prefix}model.embed_tokens.",), (f"{prefix}lm_head.",))


def resize(config: Config, cut: Cut) -> Config:
    config = dict(config)
    kept = {name: len(keep) for name, keep in cut.keep.items()}
    match cut.axis:
        case Axis.block:
            config["num_hidden_layers"] = kept["language.block"]
            if isinstance(types := config.get("layer_types"), list):
                config["layer_types"] = [types[number] for number in cut.keep["language.block"]]
        case Axis.ffn:
            config["intermediate_size"] = kept["language.ffn.0"]
        case Axis.attention:
            config = keep_planes(config, cut.keep["language.attention.planes"])
        case Axis.io:
            width, before = kept["language.io"], config["hidden_size"]
            config["head_dim"] = config.get("head_dim") or before // config["num_attention_heads"]
            config["hidden_size"] = width
            config["rms_norm_eps"] = config["rms_norm_eps"] * before / width
    return config


for _model_type in ("llama", "mistral", "arcee"):
    register(Family(_model_type, declare, resize))
