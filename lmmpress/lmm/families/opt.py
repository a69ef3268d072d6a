"""OPT: learned positions, LayerNorm before or (350m) after each network, a ReLU FFN, biases everywhere."""

from lmmpress.axes.cut import Cut
from lmmpress.axes.layout import Blocks, Ffn, TowerLayout, separate
from lmmpress.axes.slices import Shapes
from lmmpress.lmm.families.registry import Config, Declaration, Family, Place, not_expressed, register
from lmmpress.lmm.rotary import head_width


def declare(config: Config, shapes: Shapes, at: Place) -> Declaration:
    decoder = f"{at.body}decoder"
    heads: int = config["num_attention_heads"]
    query, key, value = (f"self_attn.{name}_proj" for name in "qkv")
    # the 350m model embeds and reads out at another width than its stream's
    apart = f"{decoder}.project_in.weight" in shapes
    final_norm = f"{decoder}.final_layer_norm"
    rows = {f"{decoder}.embed_positions.weight": 0.0}
    tower = TowerLayout(
        name="language",
        width=config["hidden_size"],
        stacks=(
            Blocks(
                prefix=f"{decoder}.layers",
                depth=config["num_hidden_layers"],
                attentions=(separate(query, key, value, "self_attn.out_proj", heads, head_width(config)),),
                ffns=(Ffn(widen=("fc1",), narrow="fc2", width=config["ffn_dim"]),),
                norms=("self_attn_layer_norm", "final_layer_norm"),
                final_norm=final_norm if f"{final_norm}.weight" in shapes else None,
            ),
        ),
        rms=False,
        post_norm=not config["do_layer_norm_before"],
        rows=rows if apart else rows | {f"{decoder}.embed_tokens.weight": 0.0},
        writers=(f"{decoder}.project_in",) if apart else (),
        readers=(f"{decoder}.project_out",) if apart else (at.head,),
    )
    embeddings = (f"{decoder}.embed_tokens.", f"{decoder}.embed_positions.")
    return Declaration((tower,), embeddings, (f"{at.head}.",))


def resize(config: Config, cut: Cut) -> Config:
    kept = {name: len(keep) for name, keep in cut.keep.items()}
    match cut.axis:
        case "block":
            return config | {"num_hidden_layers": kept["language.block"]}
        case "ffn":
            return config | {"ffn_dim": kept["language.ffn.0"]}
        case "attention":
            return config | {"head_dim": kept["language.attention.0"]}
        case "io":
            width = kept["language.io"]
            embedded = config["word_embed_proj_dim"]
            if embedded == config["hidden_size"]:
                embedded = width
            return config | {"hidden_size": width, "head_dim": head_width(config), "word_embed_proj_dim": embedded}
        case _:
            raise not_expressed(cut)


register(Family("opt", declare, resize))
