"""Checkpoints that are broken, foreign or hostile: one line that says what is wrong and what to do."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support.certain import certain
from support.cli import refused, run
from support.cuts import cut_of
from support.files import change_config
from support.tiny import config_of, make_model, save_model

from lmmpress.errors import UserError
from lmmpress.files.digest import digest_checkpoint
from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint
from lmmpress.lmm.compression_record import read_record
from lmmpress.lmm.weights import INDEX


@pytest.fixture
def shards(copy: Path) -> Path:
    """The checkpoint with its weights in several files."""
    save_model(load_model(copy), copy.parent / "shards", max_shard_size="100KB")
    return copy.parent / "shards"


def test_weights_that_contradict_the_config_are_named(copy: Path) -> None:
    assert "weights contradict config.json" in refused("inspect", change_config(copy, intermediate_size=128))


def test_missing_tensors_are_listed(copy: Path) -> None:
    assert "lacks tensors" in refused("inspect", change_config(copy, num_hidden_layers=5))


def test_unknown_tensors_are_listed_and_never_dropped(copy: Path) -> None:
    message = refused("inspect", change_config(copy, num_hidden_layers=3))
    assert "does not know" in message
    assert "language_model.model.layers.3." in message


def test_the_error_for_an_unknown_family_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "lama"}', "utf-8")
    message = refused("inspect", tmp_path)
    assert "did you mean 'llama'" in message
    assert "blip-2" in message


def test_the_error_for_an_unknown_tower_lists_the_known_ones(copy: Path, tmp_path: Path) -> None:
    message = refused("prune", copy, "--axis", "block", "--remove", "1", "--tower", "audio", "-o", tmp_path / "out")
    assert "no tower 'audio'" in message
    assert "vision, qformer, language" in message


@pytest.mark.parametrize("removed", [0, -1])
def test_a_cut_that_removes_nothing_is_refused(copy: Path, tmp_path: Path, removed: int) -> None:
    message = refused("prune", copy, "--axis", "block", "--remove", removed, "-o", tmp_path / "out")
    assert f"block of the language tower: {removed} is nothing to remove, at least 1" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layer", [-9, 4, [-2, 7]])
def test_a_vision_layer_that_the_tower_lacks_is_named(
    make_checkpoint: Callable[..., Path], tmp_path: Path, layer: int | list[int]
) -> None:
    folder = shutil.copytree(make_checkpoint("llava-clip-llama"), tmp_path / "llava")
    message = refused("inspect", change_config(folder, None, vision_feature_layer=layer))
    assert f"vision_feature_layer is {layer}, and a vision tower of 3 blocks has states -4 to 3" in message


def test_an_error_of_transformers_about_a_config_is_shown_with_its_reason(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """The first line of that error ends with a colon, and the reason follows."""
    folder = shutil.copytree(make_checkpoint("llava-clip-llama"), tmp_path / "llava")
    message = refused("inspect", change_config(folder, None, vision_feature_select_strategy="foo"))
    assert "Validation error for field 'vision_feature_select_strategy': " in message
    assert "foo" in message


def test_an_unknown_part_of_a_known_family_is_named(copy: Path) -> None:
    assert "unknown model family 'mamba'" in refused("inspect", change_config(copy, model_type="mamba"))


def test_a_config_of_a_newer_transformers_says_so(copy: Path) -> None:
    newer = change_config(copy, None, transformers_version="99.0.0")
    message = refused("inspect", change_config(newer, hidden_size="wide"))
    assert "written by transformers 99.0.0" in message
    assert "upgrade transformers" in message


def test_the_error_for_a_quantised_checkpoint_says_how_to_make_it_plain(copy: Path) -> None:
    assert "dequantise" in refused(
        "inspect", change_config(copy, None, quantization_config={"quant_method": "gptq", "bits": 4})
    )


def test_pickles_are_refused_with_the_remedy(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    message = refused("inspect", copy)
    assert "never opens" in message
    assert "safe_serialization=True" in message


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64, b"\x10" + b"\0" * 7 + b"{not json at all"])
def test_a_damaged_weight_file_is_a_one_line_error(copy: Path, damage: bytes) -> None:
    (copy / "model.safetensors").write_bytes(damage)
    with pytest.raises(UserError, match="safetensors"):
        run("inspect", copy)


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": {}},
        {"a": 3},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}},
        {"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
        {"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}},
        {"a": {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]}},
    ],
)
def test_a_header_that_contradicts_the_file_is_a_one_line_error(copy: Path, header: Any) -> None:
    text = json.dumps(header).encode()
    (copy / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 16)
    with pytest.raises(UserError, match=r"model\.safetensors"):
        run("inspect", copy)


def test_a_shard_that_is_not_there_is_named(shards: Path) -> None:
    gone = sorted(shards.glob("*.safetensors"))[1]
    gone.unlink()
    assert gone.name in refused("inspect", shards)


def test_a_shard_that_the_index_forgets_is_named(shards: Path) -> None:
    index = json.loads((shards / INDEX).read_text("utf-8"))
    last = sorted(set(index["weight_map"].values()))[-1]
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file != last}
    (shards / INDEX).write_text(json.dumps(index), "utf-8")
    assert f"its index does not name: {last}" in refused("inspect", shards)


def test_tensors_that_index_and_shards_disagree_about_are_named(shards: Path) -> None:
    index = json.loads((shards / INDEX).read_text("utf-8"))
    name = next(iter(index["weight_map"]))
    del index["weight_map"][name]
    (shards / INDEX).write_text(json.dumps(index), "utf-8")
    assert f"do not agree about {name}" in refused("inspect", shards)


@pytest.mark.parametrize("index", ["{}", "[]", '{"weight_map": {"a": "../../secret.safetensors"}}', "nonsense"])
def test_an_invalid_index_is_a_one_line_error(shards: Path, index: str) -> None:
    (shards / INDEX).write_text(index, "utf-8")
    with pytest.raises(UserError, match="index"):
        run("inspect", shards)


def test_the_cuts_of_another_model_are_refused(
    copy: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    anatomy = read_checkpoint(copy)
    cut = cut_of(anatomy, "language", "ffn")
    record = {"teacher": digest_checkpoint(copy), "history": [{"cut": cut.as_json()}]}
    apply_cuts(copy, read_checkpoint(copy), [cut], tmp_path / "cut", record)
    again = tmp_path / "again"
    run("prune", copy, "--cuts", tmp_path / "cut" / "COMPRESSION.json", "-o", again)
    assert digest_checkpoint(again) == digest_checkpoint(tmp_path / "cut")
    assert certain(read_record(again))["teacher"] == digest_checkpoint(copy)
    other = load_file(copy / "model.safetensors")
    other["query_tokens"] += 1
    save_file(other, copy / "model.safetensors", metadata={"format": "pt"})
    message = refused("prune", copy, "--cuts", tmp_path / "cut" / "COMPRESSION.json", "-o", tmp_path / "third")
    assert "were made for the checkpoint" in message
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("record", ["", "[]", '{"teacher": "x"}', '{"teacher": "x", "history": [{"cut": 3}]}'])
def test_a_file_that_lists_no_cuts_is_a_one_line_error(copy: Path, tmp_path: Path, record: str) -> None:
    (tmp_path / "record.json").write_text(record, "utf-8")
    with pytest.raises(UserError, match=r"COMPRESSION\.json|lists no cuts"):
        run("prune", copy, "--cuts", tmp_path / "record.json", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pooling_head_that_ties_the_width_is_given_as_the_reason(tmp_path: Path) -> None:
    config = config_of("llava-siglip-mistral")
    config["vision_config"]["vision_use_head"] = True
    save_model(make_model(config), tmp_path / "source")
    cut = cut_of(read_checkpoint(tmp_path / "source"), "vision", "io")
    with pytest.raises(UserError, match="pooling head"):
        apply_cuts(tmp_path / "source", read_checkpoint(tmp_path / "source"), [cut], tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
