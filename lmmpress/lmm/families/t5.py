"""T5 and flan-t5: an encoder and a decoder that share every width, relative positions, RMS norms, unscaled queries."""

from lmmpress.axes.cut import Cut
from lmmpress.axes.layout import Attention, Blocks, Ffn, TowerLayout
from lmmpress.axes.slices import Shapes
from lmmpress.lmm.families.registry import Config, Declaration, Family, Place, not_expressed, register


def declare(config: Config, shapes: Shapes, at: Place) -> Declaration:
    tower = TowerLayout(
        name="language",
        width=config["d_model"],
        stacks=(_stack(config, shapes, at, "encoder"), _stack(config, shapes, at, "decoder")),
        rms=True,
        rows={f"{at.body}shared.weight": 0.0},
        output_power=-0.5 if config["scale_decoder_outputs"] else 0.0,
        readers=(at.head,),
    )
    return Declaration((tower,), (f"{at.body}shared.",), (f"{at.head}.",))


def _stack(config: Config, shapes: Shapes, at: Place, name: str) -> Blocks:
    decodes = name == "decoder"
    prefix, last = f"{at.body}{name}.block", "layer.2" if decodes else "layer.1"
    gated = f"{prefix}.0.{last}.DenseReluDense.wi_0.weight" in shapes
    modules = ["layer.0.SelfAttention", *(["layer.1.EncDecAttention"] if decodes else [])]
    return Blocks(
        name=name,
        prefix=prefix,
        depth=config["num_decoder_layers" if decodes else "num_layers"],
        attentions=tuple(_attention(config, module) for module in modules),
        ffns=(
            Ffn(
                widen=tuple(f"{last}.DenseReluDense.{wide}" for wide in (("wi_0", "wi_1") if gated else ("wi",))),
                narrow=f"{last}.DenseReluDense.wo",
                width=config["d_ff"],
            ),
        ),
        norms=tuple(f"layer.{number}.layer_norm" for number in range(3 if decodes else 2)),
        final_norm=f"{at.body}{name}.final_layer_norm",
    )


def _attention(config: Config, module: str) -> Attention:
    heads = config["num_heads"]
    query, key, value, output = (f"{module}.{name}" for name in "qkvo")
    return Attention(((query, heads), (key, heads)), ((value, heads),), output, heads, config["d_kv"])


def resize(config: Config, cut: Cut) -> Config:
    kept = {name: len(keep) for name, keep in cut.keep.items()}
    match cut.axis:
        case "block":
            depths = {
                "num_layers": kept["language.block.encoder"],
                "num_decoder_layers": kept["language.block.decoder"],
            }
            return config | depths
        case "ffn":
            return config | {"d_ff": kept["language.ffn.encoder.0"]}
        case "attention":
            return config | {"d_kv": kept["language.attention.encoder.0"]}
        case "io":
            width, before = kept["language.io"], config["d_model"]
            return config | {
                "d_model": width,
                "layer_norm_epsilon": config["layer_norm_epsilon"] * before / width,
            }
        case _:
            raise not_expressed(cut)


register(Family("t5", declare, resize, auto_class="AutoModelForSeq2SeqLM", body=""))
