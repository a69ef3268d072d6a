"""CLIP and SigLIP vision transformers, as LLaVA holds them: no families of their own, for they answer nothing."""

from lmmpress.axes.cut import Cut
from lmmpress.axes.layout import Blocks, Ffn, TowerLayout, separate
from lmmpress.axes.slices import Shapes
from lmmpress.lmm.families.registry import Config, not_expressed
from lmmpress.lmm.rotary import head_width

_POOLED = "its pooling head (vision_use_head), which LLaVA never reads, ties the width to the heads; remove the head"


def declare_vision(config: Config, shapes: Shapes, prefix: str, readers: tuple[str, ...]) -> TowerLayout:
    """The vision tower whose tensors' names begin with `prefix`; `readers` are the modules that read its states."""
    heads, width = config["num_attention_heads"], config["hidden_size"]
    query, key, value = (f"self_attn.{name}_proj" for name in "qkv")
    embeddings = f"{prefix}embeddings"
    clip = config["model_type"] == "clip_vision_model"
    return TowerLayout(
        name="vision",
        width=width,
        stacks=(
            Blocks(
                prefix=f"{prefix}encoder.layers",
                depth=config["num_hidden_layers"],
                attentions=(separate(query, key, value, "self_attn.out_proj", heads, head_width(config)),),
                ffns=(Ffn(("mlp.fc1",), "mlp.fc2", config["intermediate_size"]),),
                norms=("layer_norm1", "layer_norm2"),
                final_norm=f"{prefix}post_layernorm",
            ),
        ),
        rms=False,
        outer_norms=(f"{prefix}pre_layrnorm",),
        rows={f"{embeddings}.class_embedding": 0.0, f"{embeddings}.position_embedding.weight": 0.0},
        writers=(f"{embeddings}.patch_embedding",),
        readers=readers,
        inexpressible={"io": _POOLED} if f"{prefix}head.probe" in shapes else {},
        stream_unit=heads if clip else 1,  # CLIP's config refuses other widths
    )


def resize_vision(config: Config, cut: Cut) -> Config:
    """The config of a vision transformer after a cut (CLIP, SigLIP, BLIP-2's own)."""
    kept = {name: len(keep) for name, keep in cut.keep.items()}
    match cut.axis:
        case "block":
            return config | {"num_hidden_layers": kept["vision.block"]}
        case "ffn":
            return config | {"intermediate_size": kept["vision.ffn.0"]}
        case "attention":
            return config | {"head_dim": kept["vision.attention.0"]}
        case "io":
            return config | {"hidden_size": kept["vision.io"], "head_dim": head_width(config)}
        case _:
            raise not_expressed(cut)
