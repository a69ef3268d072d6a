"""A saved checkpoint can be loaded, served and trained by other tools, and is read back before it counts as written."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.cuts import cut_of
from support.tiny import config_of, make_model, save_model

from lmmpress.errors import UserError
from lmmpress.files.own_types import MODELING
from lmmpress.lmm.checkpoint import add_difference, apply_cuts, load_model, read_checkpoint
from lmmpress.lmm.probe_inputs import probe_inputs, probe_logits
from lmmpress.lmm.tensor_cut import Cut
from lmmpress.lmm.verify import verify_cut, verify_for_users, verify_saved

NATIVE = ("blip2-llama", "language", "attention")
APART = ("blip2-opt", "qformer", "attention")
LOAD = """
import sys, torch, transformers
from safetensors.torch import load_file
auto = getattr(transformers, sys.argv[2])
trust = True if sys.argv[4:] else None
model = auto.from_pretrained(sys.argv[1], dtype=torch.float32, trust_remote_code=trust).eval()
inputs = load_file(sys.argv[3])
logits = inputs.pop("logits")
with torch.no_grad():
    assert torch.allclose(model(**inputs).logits, logits, atol=1e-5)
    made = [model.generate(**inputs, max_new_tokens=3, use_cache=cache, suppress_tokens=[3]) for cache in (True, False)]
assert torch.equal(*made)
assert "lmmpress" not in sys.modules
model.save_pretrained(sys.argv[1] + "-again")
"""


Saved = Callable[[str, str, str], tuple[Path, Path, Cut]]


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """Write a tiny model and a cut of it; the two folders and the cut."""

    def save(name: str, tower: str, axis: str) -> tuple[Path, Path, Cut]:
        save_model(make_model(config_of(name)), tmp_path / "source")
        cut = cut_of(read_checkpoint(tmp_path / "source"), tower, axis)
        apply_cuts(tmp_path / "source", read_checkpoint(tmp_path / "source"), [cut], tmp_path / "cut")
        return tmp_path / "source", tmp_path / "cut", cut

    return save


def load_elsewhere(checkpoint: Path, folder: Path, *trust: str) -> subprocess.CompletedProcess[str]:
    """Load a checkpoint with plain transformers in a new process, and compare its logits with those of this process."""
    model = load_model(checkpoint)
    inputs = probe_inputs(model)
    save_file(inputs | {"logits": probe_logits(model, inputs).contiguous()}, folder / "expected")
    command = [
        sys.executable,
        "-c",
        LOAD,
        str(checkpoint),
        "AutoModelForImageTextToText",
        str(folder / "expected"),
        *trust,
    ]
    environment = os.environ | {"HF_MODULES_CACHE": str(folder / "modules")}
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env=environment, stdin=subprocess.DEVNULL
    )


def test_plain_transformers_loads_a_shape_that_a_config_can_express(saved: Saved, tmp_path: Path) -> None:
    _, cut, _ = saved(*NATIVE)
    done = load_elsewhere(cut, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (cut / MODELING).exists()


def test_a_shape_that_a_config_cannot_express_is_saved_with_our_modelling_code(saved: Saved, tmp_path: Path) -> None:
    _, cut, _ = saved(*APART)
    refused = load_elsewhere(cut, tmp_path)
    assert refused.returncode
    assert "trust_remote_code=True" in refused.stderr.splitlines()[-1]
    done = load_elsewhere(cut, tmp_path, "trust")
    assert done.returncode == 0, done.stderr
    # and once more from what its user saved
    again = load_elsewhere(tmp_path / "cut-again", tmp_path, "trust")
    assert again.returncode == 0, again.stderr


def test_a_shape_that_becomes_plain_again_is_saved_plainly(saved: Saved, tmp_path: Path) -> None:
    """Width 48 in 4 heads of 12: after cuts of the heads to 8 and of the stream to 32, the family's own config can
    express the shape again."""
    _, apart, _ = saved("opt", "language", "attention")
    assert json.loads((apart / "config.json").read_text("utf-8"))["model_type"] == "lmmpress-opt"
    anatomy = read_checkpoint(apart)
    width = anatomy.towers["language"].axes["attention"].width
    back = cut_of(anatomy, "language", "io", units=48 - width)
    apply_cuts(apart, read_checkpoint(apart), [back], tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text("utf-8"))
    assert config["model_type"] == "opt"
    assert "auto_map" not in config
    assert not (tmp_path / "plain" / MODELING).exists()
    verify_cut(apart, read_checkpoint(apart), [back], tmp_path / "plain")


def test_lmmpress_never_runs_the_code_of_a_checkpoint(saved: Saved) -> None:
    source, apart, cut = saved(*APART)
    (apart / MODELING).write_text("raise SystemExit('ran')", "utf-8")
    load_model(apart)
    verify_cut(source, read_checkpoint(source), [cut], apart)
    with pytest.raises(UserError, match="not this library's"):
        verify_for_users(apart)


def test_a_checkpoint_that_was_written_well_passes_the_check(saved: Saved) -> None:
    for case in (NATIVE, APART):
        source, target, cut = saved(*case)
        verify_cut(source, read_checkpoint(source), [cut], target)
        verify_for_users(target)
        shutil.rmtree(source)
        shutil.rmtree(target)


def forget_frequencies(target: Path) -> None:
    config = json.loads((target / "config.json").read_text("utf-8"))
    config["text_config"]["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    (target / "config.json").write_text(json.dumps(config), "utf-8")


def change_a_value(target: Path) -> None:
    path = target / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def rename_a_tensor(target: Path) -> None:
    values = load_file(target / "model.safetensors")
    values["query_token"] = values.pop("query_tokens")
    save_file(values, target / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [(forget_frequencies, "logits differ"), (change_a_value, "does not hold"), (rename_a_tensor, "lacks tensors")],
)
def test_a_checkpoint_that_loads_without_complaint_and_is_wrong_is_noticed(
    saved: Saved, damage: Callable[[Path], None], said: str
) -> None:
    source, target, cut = saved(*NATIVE)
    damage(target)
    with pytest.raises(UserError, match=said):
        verify_cut(source, read_checkpoint(source), [cut], target)


def test_a_trained_model_is_compared_with_what_was_saved_of_it(saved: Saved) -> None:
    _, target, _ = saved(*NATIVE)
    model = load_model(target)
    verify_saved(model, target)
    change = model.get_parameter("language_projection.weight")
    change.data += 0.1
    with pytest.raises(UserError, match="logits differ"):
        verify_saved(model, target)


def test_names_and_buffers_of_older_files_are_understood(tmp_path: Path) -> None:
    """As in LLaVA on the hub: other names for the vision tower, and stored buffers that models now compute."""
    save_model(make_model(config_of("llava-clip-llama")), tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    values = load_file(tmp_path / "new" / "model.safetensors")
    old = {name.replace("vision_tower.", "vision_tower.vision_model."): value for name, value in values.items()}
    old["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    old["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(6)
    save_file(old, tmp_path / "old" / "model.safetensors", metadata={"format": "pt"})
    cut = cut_of(read_checkpoint(tmp_path / "old"), "vision", "block")
    apply_cuts(tmp_path / "old", read_checkpoint(tmp_path / "old"), [cut], tmp_path / "cut")
    verify_cut(tmp_path / "old", read_checkpoint(tmp_path / "old"), [cut], tmp_path / "cut")
    apply_cuts(tmp_path / "new", read_checkpoint(tmp_path / "new"), [cut], tmp_path / "again")
    first, second = load_model(tmp_path / "cut"), load_model(tmp_path / "again")
    inputs = probe_inputs(first)
    assert torch.equal(probe_logits(first, inputs), probe_logits(second, inputs))


def test_tokenizer_processor_and_templates_are_copied(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = shutil.copytree(make_checkpoint("llama"), tmp_path / "source")
    (source / "chat_template.jinja").write_text("{{ messages[0].content }}", "utf-8")
    cut = cut_of(read_checkpoint(source), "language", "ffn")
    apply_cuts(source, read_checkpoint(source), [cut], tmp_path / "cut")
    weights = {"config.json", "model.safetensors"}
    companions = {path.name for path in source.iterdir()} - weights
    assert {"tokenizer.json", "generation_config.json", "chat_template.jinja"} <= companions
    for name in companions:
        assert (tmp_path / "cut" / name).read_bytes() == (source / name).read_bytes()


def test_the_compressed_checkpoint_trains_on_with_the_trainer(saved: Saved, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    save_model(make_model(config_of("qwen2")), tmp_path / "source")
    cut = cut_of(read_checkpoint(tmp_path / "source"), "language", "attention")
    apply_cuts(tmp_path / "source", read_checkpoint(tmp_path / "source"), [cut], tmp_path / "cut")
    model = load_model(tmp_path / "cut")
    ids = torch.randint(3, 64, (8, 6), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": row, "labels": row} for row in ids]
    settings = TrainingArguments(
        tmp_path / "out", max_steps=12, learning_rate=5e-3, report_to="none", use_cpu=True, logging_steps=1, seed=0
    )
    trainer = Trainer(model, settings, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
    trainer.save_model(tmp_path / "tuned")
    read_checkpoint(tmp_path / "tuned")


@pytest.mark.parametrize("name", ["qwen2", "opt"])
def test_the_compressed_checkpoint_exports_where_the_original_does(tmp_path: Path, name: str) -> None:
    """With torch.export. OPT with narrower heads exports too, with its own modelling code."""
    save_model(make_model(config_of(name)), tmp_path / "source")
    cut = cut_of(read_checkpoint(tmp_path / "source"), "language", "attention")
    apply_cuts(tmp_path / "source", read_checkpoint(tmp_path / "source"), [cut], tmp_path / "cut")
    for folder in ("source", "cut"):
        model = load_model(tmp_path / folder)
        inputs = probe_inputs(model)
        program = torch.export.export(model, (), inputs | {"use_cache": False}, strict=False)
        logits = program.module()(**inputs, use_cache=False).logits
        assert torch.allclose(logits, probe_logits(model, inputs), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_difference_of_two_checkpoints_is_added_to_a_third(dtype: torch.dtype, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("source", "plus", "minus")]
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        save_model(make_model(config_of("blip2-llama")).to(dtype), folder)
    anatomy = read_checkpoint(folders[0])
    add_difference(folders[0], anatomy, folders[1], folders[2], tmp_path / "sum", {"format": 1, "history": []})
    source, plus, minus, found = (load_file(folder / "model.safetensors") for folder in (*folders, tmp_path / "sum"))
    assert found.keys() == source.keys()
    for name, value in found.items():
        wanted = source[name].double() + (plus[name].double() - minus[name].double())
        assert torch.equal(value, wanted.to(dtype)), name
    add_difference(folders[2], anatomy, folders[1], folders[2], tmp_path / "back", {"format": 1, "history": []})
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert all(torch.equal(value, plus[name]) for name, value in back.items()), "x + (y - x) is y, to the last bit"


def test_a_difference_with_another_model_is_refused_and_names_the_tensor(saved: Saved, tmp_path: Path) -> None:
    source, cut, _ = saved("blip2-llama", "language", "ffn")
    with pytest.raises(UserError, match=r"has no language_model\S* of the shape .*: it is of another model"):
        add_difference(source, read_checkpoint(source), source, cut, tmp_path / "sum", {"format": 1, "history": []})
    assert not (tmp_path / "sum").exists()
