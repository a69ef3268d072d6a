"""Starcoder2: rotary attention with grouped queries, LayerNorm, a plain FFN, biases, a tied head."""

from lmmpress.axes.layout import Attention, Blocks, Ffn, TowerLayout
from lmmpress.axes.slices import Shapes
from lmmpress.lmm.families.llama import resize
from lmmpress.lmm.families.registry import Config, Declaration, Family, Place, register
from lmmpress.lmm.rotary import head_width, turning_planes


def declare(config: Config, shapes: Shapes, at: Place) -> Declaration:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    attention = Attention(
        query_key=(("self_attn.q_proj", heads), ("self_attn.k_proj", kv_heads)),
        value=(("self_attn.v_proj", kv_heads),),
        output="self_attn.o_proj",
        heads=heads,
        head_dim=head_width(config),
        scaled={"self_attn.q_proj": heads},
        rotary="halves",
        turning=turning_planes(config),
    )
    blocks = Blocks(
        prefix=f"{at.body}layers",
        depth=config["num_hidden_layers"],
        attentions=(attention,),
        ffns=(Ffn(widen=("mlp.c_fc",), narrow="mlp.c_proj", width=config["intermediate_size"]),),
        norms=("input_layernorm", "post_attention_layernorm"),
        final_norm=f"{at.body}norm",
    )
    tower = TowerLayout(
        name="language",
        width=config["hidden_size"],
        stacks=(blocks,),
        rms=False,
        rows={f"{at.body}embed_tokens.weight": 0.0},
        readers=(at.head,),
    )
    return Declaration((tower,), (f"{at.body}embed_tokens.",), (f"{at.head}.",))


register(Family("starcoder2", declare, resize))
