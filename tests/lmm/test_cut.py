"""Cuts are data: they compose, and one cut of a file or of several files is the same cut."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.cuts import cut_of
from support.tiny import config_of, make_model, output_embedding, save_model

from lmmpress.axes import axes
from lmmpress.axes.cut import Cut
from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy, count_by_tower
from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint, save_trained
from lmmpress.lmm.probe_inputs import probe_inputs, probe_logits
from lmmpress.lmm.read_anatomy import anatomy_after, anatomy_of
from lmmpress.lmm.tensor_cut import TensorCut, compose, masked
from lmmpress.lmm.verify import verify_cut
from lmmpress.pruning.sizes import predict

SEVERAL = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FAMILIES = ("llama", "arcee", "mistral", "qwen2", "qwen3", "gemma", "glm", "glm4", "starcoder2", "opt", "t5", "flan-t5")


@st.composite
def configs(draw: st.DrawFn) -> dict:
    """Configs of any family with widths, head counts, head widths and depths drawn at random."""
    family = draw(st.sampled_from((*FAMILIES, "blip2-llama", "llava-siglip-mistral")))
    if family.startswith("blip2"):
        config = config_of(family, 32)
        config["qformer_config"] |= {
            "num_hidden_layers": draw(st.integers(2, 4)),
            "cross_attention_frequency": draw(st.integers(1, 3)),
        }
        return config
    if family.startswith("llava"):
        return config_of(family, 32) | {"vision_feature_layer": draw(st.sampled_from((-1, -2, -3, 1, [-2, -1])))}
    heads, head_dim = draw(st.sampled_from((1, 2, 4))), draw(st.sampled_from((4, 8, 12)))
    depth, ffn = draw(st.integers(2, 4)), draw(st.integers(3, 20))
    if "t5" in family:
        shape = {"num_heads": heads, "d_kv": head_dim, "d_model": draw(st.integers(4, 24)), "d_ff": ffn}
        return config_of(family, 32, num_layers=depth, num_decoder_layers=depth, **shape)
    if family == "opt":
        width = heads * head_dim
        shape = {"hidden_size": width, "word_embed_proj_dim": width, "ffn_dim": ffn}
    else:
        unit = heads if family in ("llama", "arcee") else 1
        shape = {"hidden_size": unit * draw(st.integers(4, 12)), "head_dim": head_dim, "intermediate_size": ffn}
        shape["num_key_value_heads"] = 1 if draw(st.booleans()) else heads
        if family == "qwen3":
            # its norms over a head share the config's epsilon, which no cut can change for them alone: it weighs where
            # a head is a few numbers wide and its values are tiny
            return config_of(family, 32, num_attention_heads=heads, num_hidden_layers=depth, rms_norm_eps=1e-9, **shape)
    return config_of(family, 32, num_attention_heads=heads, num_hidden_layers=depth, **shape)


def draw_cut(draw: Callable[..., Any], anatomy: Anatomy) -> Cut:
    tower, axis = draw(st.sampled_from(sorted(anatomy.towers))), draw(st.sampled_from([axis.name for axis in axes()]))
    most = units_of(anatomy, tower, axis)
    if most < 1:
        axis = "ffn"
        most = units_of(anatomy, tower, axis)
    return cut_of(anatomy, tower, axis, draw(st.integers(0, 99)), draw(st.integers(1, max(1, most))))


def units_of(anatomy: Anatomy, tower: str, axis: str) -> int:
    """How many units of an axis a cut can remove."""
    body = anatomy.towers[tower].axes[axis]
    return body.width // body.unit - 1


@SEVERAL
@given(st.data())
def test_any_legal_cut_of_any_model_equals_its_masked_reference(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    save_model(make_model(data.draw(configs())), folder / "source")
    anatomy = read_checkpoint(folder / "source")
    cut = draw_cut(data.draw, anatomy)
    apply_cuts(folder / "source", anatomy, [cut], folder / "cut")
    verify_cut(folder / "source", anatomy, [cut], folder / "cut")
    body = anatomy.towers[cut.tower].axes[cut.axis]
    if body.exactness != "approximate" and body.maskable:
        uncut, model = load_model(folder / "source"), load_model(folder / "cut")
        uncut.load_state_dict(masked(anatomy, cut.keep, uncut.state_dict()))
        inputs = probe_inputs(uncut)
        assert torch.allclose(probe_logits(model, inputs), probe_logits(uncut, inputs), atol=1e-5, rtol=1e-4)


@SEVERAL
@given(st.data())
def test_cuts_in_turn_equal_their_composition_applied_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("compose")
    save_model(make_model(data.draw(configs())), folder / "0")
    anatomy = read_checkpoint(folder / "0")
    cuts = []
    for number in range(3):
        cuts.append(draw_cut(data.draw, anatomy))
        apply_cuts(folder / str(number), anatomy, [cuts[-1]], folder / str(number + 1))
        anatomy = anatomy_after(anatomy, cuts[-1])
        if any(units_of(anatomy, tower, "ffn") < 1 for tower in anatomy.towers):
            break
    apply_cuts(folder / "0", read_checkpoint(folder / "0"), cuts, folder / "once")
    in_turn, once = (load_file(folder / name / "model.safetensors") for name in (str(len(cuts)), "once"))
    assert in_turn.keys() == once.keys()
    for name, value in once.items():
        assert torch.allclose(in_turn[name], value, rtol=1e-5, atol=1e-7), name
    assert read_checkpoint(folder / "once").shapes == read_checkpoint(folder / str(len(cuts))).shapes


def test_any_blocks_may_be_kept() -> None:
    """Pruning removes the last blocks, but a cut may keep any; the kept blocks are renumbered."""
    anatomy = anatomy_of(config_of("llama"))
    blocks = Cut(tower="language", axis="block", removed=2, keep={"language.block": [0, 3]})
    after = anatomy_after(anatomy, blocks)
    ffn = cut_of(after, "language", "ffn")
    kept = compose(anatomy, [blocks, ffn])
    assert kept["language.ffn.3"] == ffn.keep["language.ffn.1"]
    plan = TensorCut(anatomy, kept)
    assert plan.name("model.layers.3.mlp.up_proj.weight") == "model.layers.1.mlp.up_proj.weight"
    assert plan.name("model.layers.2.mlp.up_proj.weight") is None


def test_a_cut_made_for_another_model_is_refused(tmp_path: Path) -> None:
    save_model(make_model(config_of("llama")), tmp_path / "small")
    cut = cut_of(anatomy_of(config_of("llama", intermediate_size=128)), "language", "ffn")
    with pytest.raises(UserError, match="made for another model"):
        apply_cuts(tmp_path / "small", read_checkpoint(tmp_path / "small"), [cut], tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


def test_tensors_keep_the_names_that_files_give_them_and_lie_by_tower(tmp_path: Path) -> None:
    """LLaVA's files use other tensor names than the model; written files keep the names of the files."""
    save_model(make_model(config_of("llava-clip-llama")), tmp_path / "source", max_shard_size="60KB")
    before = json.loads((tmp_path / "source" / "model.safetensors.index.json").read_text("utf-8"))["weight_map"]
    anatomy = read_checkpoint(tmp_path / "source")
    cuts = [cut_of(anatomy, "language", "io")]
    apply_cuts(tmp_path / "source", read_checkpoint(tmp_path / "source"), cuts, tmp_path / "cut")
    after = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text("utf-8"))["weight_map"]
    assert after.keys() == before.keys()
    assert set(after.values()) == {f"model-{shard}.safetensors" for shard in ("vision", "image", "language")}
    verify_cut(tmp_path / "source", read_checkpoint(tmp_path / "source"), cuts, tmp_path / "cut")


def test_the_file_of_a_tower_that_was_not_changed_has_the_same_bytes(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is stored and sent once in a whole run, also after cuts of another tower and after training."""
    monkeypatch.setattr("lmmpress.lmm.checkpoint.ONE_FILE", 0)
    folders = [make_checkpoint("llama"), tmp_path / "1", tmp_path / "2", tmp_path / "3"]
    for source, target in pairwise(folders[:-1]):
        apply_cuts(source, read_checkpoint(source), [cut_of(read_checkpoint(source), "language", "block")], target)
    model = load_model(folders[2])
    torch.nn.init.normal_(output_embedding(model))
    save_trained(model, folders[2], read_checkpoint(folders[2]), folders[3], {})
    for shard in ("vision", "qformer", "image"):
        assert len({(folder / f"model-{shard}.safetensors").read_bytes() for folder in folders[1:]}) == 1
    assert len({(folder / "model-language.safetensors").read_bytes() for folder in folders[1:]}) == 3


def test_predicted_sizes_are_those_of_the_cut_checkpoints(
    make_checkpoint: Callable[..., Path], tmp_path: Path, raw_plan: dict[str, Any]
) -> None:
    from lmmpress.plan import parse_plan

    plan, checkpoint = parse_plan(raw_plan), make_checkpoint("llama")
    sizes = predict(read_checkpoint(checkpoint), plan)
    for number, size in enumerate(sizes[1:]):
        anatomy = read_checkpoint(checkpoint)
        axis = size.stage
        cut = cut_of(anatomy, "language", axis, units=size.removed // anatomy.towers["language"].axes[axis].unit)
        apply_cuts(checkpoint, read_checkpoint(checkpoint), [cut], tmp_path / str(number))
        checkpoint = tmp_path / str(number)
        assert count_by_tower(read_checkpoint(checkpoint)) == size.parameters_by_tower


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rescaled_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    """torch multiplies by a number in float32; a rescaled cut relies on it."""
    value = torch.randn(4096, generator=torch.Generator().manual_seed(0)).to(dtype)
    for factor in (0.75**0.5, 1.5**0.5):
        assert torch.equal(value * factor, (value.float() * factor).to(dtype))
