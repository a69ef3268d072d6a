"""OPT: learned positions, LayerNorm, a ReLU FFN, biases everywhere."""

from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Shapes
from lmmpress.lmm.cut import Cut
from lmmpress.lmm.declare import Attention, Ffn, TowerPlan
from lmmpress.lmm.families.registry import Config, Declaration, Family, register
from lmmpress.plan import Axis

_TIED_WIDTHS = "its config has no head width of its own: hidden_size is always heads x head width"


def declare(config: Config, shapes: Shapes, prefix: str) -> Declaration:
    if config.get("word_embed_proj_dim", config["hidden_size"]) != config["hidden_size"]:
        raise UserError("OPT with word_embed_proj_dim other than hidden_size (the 350m model) is not supported")
    decoder = f"{prefix}model.decoder"
    heads: int = config["num_attention_heads"]
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    tower = TowerPlan(
        name="language",
        blocks=f"{decoder}.layers",
        depth=config["num_hidden_layers"],
        width=config["hidden_size"],
        attentions=(
            Attention(
                query_key=((names[0], heads), (names[1], heads)),
                value=((names[2], heads),),
                output="self_attn.out_proj",
                heads=heads,
                head_dim=config["hidden_size"] // heads,
                scaled=(names[0],),
            ),
        ),
        ffns=(Ffn(widen=("fc1",), narrow="fc2", width=config["ffn_dim"]),),
        norms=("self_attn_layer_norm", "final_layer_norm"),
        final_norm=f"{decoder}.final_layer_norm" if f"{decoder}.final_layer_norm.weight" in shapes else None,
        rms=False,
        rows=(f"{decoder}.embed_tokens.weight", f"{decoder}.embed_positions.weight"),
        readers=(f"{prefix}lm_head",),
        inexpressible={Axis.attention: _TIED_WIDTHS, Axis.io: _TIED_WIDTHS},
    )
    embeddings = (f"{decoder}.embed_tokens.", f"{decoder}.embed_positions.")
    return Declaration((tower,), embeddings, (f"{prefix}lm_head.",))


def resize(config: Config, cut: Cut) -> Config:
    keep = cut.keep
    match cut.axis:
        case Axis.block:
            return config | {"num_hidden_layers": len(keep["language.block"])}
        case Axis.ffn:
            return config | {"ffn_dim": len(keep["language.ffn.0"])}
    raise UserError(f"an OPT language tower cannot be cut along {cut.axis}: {_TIED_WIDTHS}")


register(Family("opt", declare, resize))
