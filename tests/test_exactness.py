"""A cut is exact where mathematics allows: its logits are those of the uncut model with the removed weights at zero."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.lmm.checkpoint import apply_cut, load_model, read_checkpoint
from lmmpress.lmm.cut import masked, shapes_after
from lmmpress.lmm.weights import stored_shapes
from lmmpress.plan import Axis
from lmmpress.pruning.choose import choose
from lmmpress.pruning.predict import predict

CASES = [
    (kind, "language", axis, amount)
    for kind in ("llama", "arcee")
    for axis, amount in ((Axis.ffn, 24), (Axis.attention, 24), (Axis.io, 12))
] + [("opt", "language", Axis.ffn, 24), ("llama", "vision", Axis.ffn, 10), ("llama", "qformer", Axis.ffn, 10)]


def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(4, 24, (3, 9), generator=generator)
    ids = torch.cat([torch.full((3, 4), 3), text], dim=1)
    return {"input_ids": ids, "pixel_values": torch.randn(3, 3, 16, 16, generator=generator)}


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(**inputs()).logits


def random_scores(anatomy, tower: str, axis: Axis, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        group.name: torch.rand(group.size, generator=generator) for group in anatomy.towers[tower].axes[axis].groups
    }


def cut_and_reference(checkpoint: Path, tower: str, axis: Axis, amount: int, target: Path, seed: int = 0):
    anatomy = read_checkpoint(checkpoint)
    cut = choose(anatomy, tower, axis, amount, random_scores(anatomy, tower, axis, seed))
    apply_cut(checkpoint, cut, target)
    reference = load_model(checkpoint)
    reference.load_state_dict(masked(anatomy, cut, reference.state_dict()))
    return anatomy, cut, logits(reference)


@pytest.mark.parametrize(("kind", "tower", "axis", "amount"), CASES)
def test_logits_equal_those_of_the_masked_model(make_checkpoint, tmp_path, kind, tower, axis, amount) -> None:
    _, _, reference = cut_and_reference(make_checkpoint(kind), tower, axis, amount, tmp_path / "cut")
    assert torch.allclose(logits(load_model(tmp_path / "cut")), reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "tower"), [("llama", "language"), ("opt", "language"), ("llama", "vision")])
def test_a_block_cut_equals_the_model_whose_last_blocks_pass_the_stream_through(
    make_checkpoint, tmp_path, kind, tower
) -> None:
    checkpoint = make_checkpoint(kind)
    anatomy = read_checkpoint(checkpoint)
    apply_cut(checkpoint, choose(anatomy, tower, Axis.block, 1, None), tmp_path / "cut")
    reference = load_model(checkpoint)
    last = f"{anatomy.towers[tower].blocks}.{anatomy.towers[tower].depth - 1}."
    writers = ("o_proj", "out_proj", "down_proj", "fc2", "projection")
    state = {
        name: torch.zeros_like(value) if name.startswith(last) and name.split(".")[-2] in writers else value
        for name, value in reference.state_dict().items()
    }
    reference.load_state_dict(state)
    assert torch.allclose(logits(load_model(tmp_path / "cut")), logits(reference), atol=1e-5)


@pytest.mark.parametrize(("kind", "tower", "axis", "amount"), CASES)
def test_shapes_and_parameters_are_as_predicted(make_checkpoint, tmp_path, kind, tower, axis, amount) -> None:
    anatomy, cut, _ = cut_and_reference(make_checkpoint(kind), tower, axis, amount, tmp_path / "cut")
    assert stored_shapes(tmp_path / "cut") == shapes_after(anatomy, cut)
    read_checkpoint(tmp_path / "cut")  # the config says the same, else this raises


@pytest.mark.parametrize("kind", ["llama", "arcee"])
def test_ties_stay_tied_and_untied_stay_untied(make_checkpoint, tmp_path, kind) -> None:
    cut_and_reference(make_checkpoint(kind), "language", Axis.io, 12, tmp_path / "cut")
    model = load_model(tmp_path / "cut")
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == (kind == "llama")


@pytest.mark.parametrize("axis", [Axis.attention, Axis.io])
def test_generation_with_cache_equals_generation_without(make_checkpoint, tmp_path, axis) -> None:
    cut_and_reference(make_checkpoint("llama"), "language", axis, 24, tmp_path / "cut")
    model = load_model(tmp_path / "cut")
    made = [model.generate(**inputs(), max_new_tokens=8, do_sample=False, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*made)


def test_two_cuts_in_turn_are_still_exact(make_checkpoint, tmp_path) -> None:
    """Kept rotary frequencies are read back from the config of the first cut."""
    cut_and_reference(make_checkpoint("llama"), "language", Axis.attention, 16, tmp_path / "once")
    _, _, reference = cut_and_reference(tmp_path / "once", "language", Axis.attention, 8, tmp_path / "twice", seed=1)
    assert torch.allclose(logits(load_model(tmp_path / "twice")), reference, atol=1e-5)


def test_plain_transformers_in_a_fresh_process_gives_the_same_logits(make_checkpoint, tmp_path) -> None:
    _, _, reference = cut_and_reference(make_checkpoint("llama"), "language", Axis.attention, 24, tmp_path / "cut")
    save_file(inputs() | {"logits": reference.contiguous()}, tmp_path / "expected")
    script = (
        "import sys, torch\n"
        "from transformers import AutoModelForImageTextToText\n"
        "model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], dtype=torch.float32).eval()\n"
        "from safetensors.torch import load_file\n"
        "inputs = load_file(sys.argv[2])\n"
        "logits = inputs.pop('logits')\n"
        "with torch.no_grad():\n"
        "    assert torch.allclose(model(**inputs).logits, logits, atol=1e-5)\n"
        "assert 'lmmpress' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "cut", tmp_path / "expected"], check=True)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["llama", "arcee"]),
    axis=st.sampled_from([Axis.ffn, Axis.attention, Axis.io]),
    units=st.integers(1, 6),
    seed=st.integers(0, 2**16),
)
def test_any_legal_cut_is_exact(make_checkpoint, tmp_path_factory, kind, axis, units, seed) -> None:
    checkpoint = make_checkpoint(kind)
    amount = units * read_checkpoint(checkpoint).towers["language"].axes[axis].unit
    target = tmp_path_factory.mktemp("any") / "cut"
    _, _, reference = cut_and_reference(checkpoint, "language", axis, amount, target, seed)
    assert torch.allclose(logits(load_model(target)), reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "axis"), [("opt", Axis.attention), ("opt", Axis.io)])
def test_what_the_config_cannot_express_is_refused_with_the_reason(make_checkpoint, tmp_path, kind, axis) -> None:
    checkpoint = make_checkpoint(kind)
    anatomy = read_checkpoint(checkpoint)
    amount = anatomy.towers["language"].axes[axis].unit * 2
    cut = choose(anatomy, "language", axis, amount, random_scores(anatomy, "language", axis))
    with pytest.raises(UserError, match="head width"):
        apply_cut(checkpoint, cut, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


def test_sharded_checkpoints_stay_sharded(make_checkpoint: Callable[..., Path], tmp_path) -> None:
    model = load_model(make_checkpoint("llama"))
    model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    _, _, reference = cut_and_reference(tmp_path / "shards", "language", Axis.io, 12, tmp_path / "cut")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 1
    assert torch.allclose(logits(load_model(tmp_path / "cut")), reference, atol=1e-5)


def test_predicted_sizes_are_those_of_the_cut_checkpoints(make_checkpoint, tmp_path, raw_plan) -> None:
    from lmmpress.plan import parse_plan

    plan = parse_plan(raw_plan)
    checkpoint = make_checkpoint("llama")
    sizes = predict(read_checkpoint(checkpoint), plan)
    for number, size in enumerate(sizes[1:]):
        anatomy = read_checkpoint(checkpoint)
        axis = Axis(size.stage)
        cut = choose(anatomy, "language", axis, size.removed, random_scores(anatomy, "language", axis))
        apply_cut(checkpoint, cut, tmp_path / str(number))
        checkpoint = tmp_path / str(number)
        assert count_by_tower(read_checkpoint(checkpoint)) == size.parameters_by_tower


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rescaled_in_float32_and_rounded_once(dtype) -> None:
    """torch multiplies by a number in float32; a rescaled cut relies on it."""
    value = torch.randn(4096, generator=torch.Generator().manual_seed(0)).to(dtype)
    for factor in (0.75**0.5, 1.5**0.5):
        assert torch.equal(value * factor, (value.float() * factor).to(dtype))
