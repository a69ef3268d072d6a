"""A checkpoint with foreign files: what of it is read, run, kept and passed on."""

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from support.cli import refused, run
from support.cuts import cut_of
from support.files import change_config, edit_json, names_in
from support.paths import ROOT
from support.strangers import add_foreign, point_at_code
from support.tiny import config_of, make_model, save_model
from typer.testing import CliRunner

from lmmpress.cli.app import app
from lmmpress.errors import UserError
from lmmpress.files.allow_list import choose
from lmmpress.files.digest import digest_checkpoint
from lmmpress.files.own_types import MODELING, modeling_code
from lmmpress.files.strict_json import parse_mapping
from lmmpress.host.processes import environment, inherited
from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint
from lmmpress.lmm.verify import verify_for_users
from lmmpress.lmm.weights import INDEX
from lmmpress.store import open_store

SAMPLE = ROOT / "lmmpress" / "sample" / "antgmm_mini"


def test_the_digest_of_the_sample_is_the_recorded_one() -> None:
    assert digest_checkpoint(SAMPLE) == "e5b01c9feac1ac918a18bee8e8742d0801d630a77c84ecf3252b0473ba7d3254"
    assert choose(SAMPLE).are_clean


def test_a_cut_keeps_what_belongs_to_a_checkpoint_and_says_what_it_left(copy: Path, tmp_path: Path) -> None:
    for name in ("README.md", "LICENSE", "NOTICE.txt", "chat_template.jinja", "additional_chat_templates/tool.jinja"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("text", "utf-8")
    wanted, digest = names_in(copy), digest_checkpoint(copy)
    add_foreign(copy)
    assert digest_checkpoint(copy) == digest
    arguments = ["prune", str(copy), "--axis", "block", "--remove", "1", "-o", str(tmp_path / "cut")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert names_in(tmp_path / "cut") == wanted | {"COMPRESSION.json"}
    told = [line for line in done.stderr.splitlines() if line.startswith("left out of")]
    assert len(told) == 1
    assert "custom_generate/" in told[0]
    assert not (tmp_path / "ran").exists()


def test_a_store_takes_in_what_belongs_to_a_checkpoint(copy: Path, tmp_path: Path) -> None:
    wanted, digest = names_in(copy), digest_checkpoint(copy)
    add_foreign(copy)
    store = open_store(str(tmp_path / "store"))
    assert store.add_checkpoint(copy) == digest
    assert set(store.manifest(digest).files) == wanted


def test_no_written_config_names_code(copy: Path, tmp_path: Path) -> None:
    point_at_code(copy)
    store = open_store(str(tmp_path / "store"))
    run("prune", copy, "--axis", "block", "--remove", "1", "-o", tmp_path / "cut")
    for folder in (tmp_path / "cut", store.checkpoint(store.add_checkpoint(copy))):
        for path in folder.glob("*.json"):
            text = path.read_text("utf-8")
            assert "auto_map" not in text
            assert "evil" not in text
        verify_for_users(folder)
    assert store.add_checkpoint(copy) == digest_checkpoint(copy)


def test_a_checkpoint_of_our_own_types_is_always_built_by_our_own_file(tmp_path: Path) -> None:
    save_model(make_model(config_of("blip2-opt")), tmp_path / "source")
    cut = cut_of(read_checkpoint(tmp_path / "source"), "vision", "attention")
    apart = tmp_path / "apart"
    apply_cuts(tmp_path / "source", read_checkpoint(tmp_path / "source"), [cut], apart)
    clean = digest_checkpoint(apart)
    add_foreign(apart)
    assert digest_checkpoint(apart) == clean
    point_at_code(apart)
    load_model(apart)
    store = open_store(str(tmp_path / "store"))
    stored = store.checkpoint(store.add_checkpoint(apart))
    assert (stored / MODELING).read_bytes() == modeling_code()
    told = json.loads((stored / "config.json").read_text("utf-8"))
    assert set(told["auto_map"].values()) == {
        "modeling_lmmpress.LmmpressBlip2Config",
        "modeling_lmmpress.LmmpressBlip2ForConditionalGeneration",
    }
    verify_for_users(stored)
    with pytest.raises(UserError, match="not this library's"):
        verify_for_users(apart)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_for_users_holds_no_other_files(copy: Path) -> None:
    verify_for_users(copy)
    (copy / "custom_generate").mkdir()
    with pytest.raises(UserError, match="more than a checkpoint needs: custom_generate/"):
        verify_for_users(copy)


@pytest.mark.parametrize("name", ["notes.txt", "tokenizer.json", "model.safetensors", "sub"])
def test_a_link_that_leads_out_is_refused_by_name(copy: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    if (copy / name).exists():
        (copy / name).rename(outside)
    elif name == "sub":
        outside.mkdir()
    else:
        outside.write_text("secret", "utf-8")
    (copy / name).symlink_to(outside)
    message = refused("prune", copy, "--axis", "block", "--remove", "1", "-o", tmp_path / "cut")
    assert f"{name} is a link that leads out" in message
    assert not (tmp_path / "cut").exists()


def test_a_link_to_a_hidden_file_inside_is_refused_too(copy: Path) -> None:
    (copy / ".env").write_text("TOKEN=secret", "utf-8")
    (copy / "README.md").symlink_to(".env")
    assert "README.md is a link that leads out" in refused("inspect", copy)


def test_a_snapshot_of_the_hugging_face_cache_is_read_through_its_links(copy: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "abc"
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(copy.iterdir()):
        shutil.copyfile(path, repository / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    digest = digest_checkpoint(copy)
    assert digest_checkpoint(snapshot) == digest
    run("inspect", snapshot)
    load_model(snapshot)
    run("prune", snapshot, "--axis", "block", "--remove", "1", "-o", tmp_path / "cut")
    assert not any(path.is_symlink() for path in (tmp_path / "cut").iterdir())
    store = open_store(str(tmp_path / "store"))
    assert store.add_checkpoint(snapshot) == digest
    # the blobs of another model are none of its own
    other = tmp_path / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    (repository / "blobs" / "0").rename(other / "0")
    first = next(path for path in snapshot.iterdir() if os.readlink(path).endswith("/0"))
    first.unlink()
    first.symlink_to(other / "0")
    assert f"{first.name} is a link that leads out" in refused("inspect", snapshot)


def test_links_inside_of_a_checkpoint_are_followed(copy: Path, tmp_path: Path) -> None:
    (copy / "tokenizer.json").rename(copy / "tokenizer.2.json")
    (copy / "tokenizer.json").symlink_to("tokenizer.2.json")
    run("prune", copy, "--axis", "block", "--remove", "1", "-o", tmp_path / "cut")
    assert (tmp_path / "cut" / "tokenizer.json").read_bytes() == (copy / "tokenizer.2.json").read_bytes()


@pytest.mark.parametrize("name", ["README.md", "generation_config.json", "model.safetensors"])
def test_only_regular_files_are_opened(copy: Path, name: str) -> None:
    (copy / name).unlink(missing_ok=True)
    os.mkfifo(copy / name)
    assert f"{name} is no regular file" in refused("inspect", copy)


def test_a_socket_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("merges.txt")
    assert "merges.txt is no regular file" in refused("inspect", copy)


def test_a_small_file_of_200_gigabytes_is_not_read(copy: Path) -> None:
    for name in ("README.md", "config.json", INDEX):
        before = (copy / name).read_bytes() if (copy / name).exists() else None
        with (copy / name).open("wb") as file:
            file.truncate(200 << 30)
        assert f"{name} has {200 << 30} bytes" in refused("inspect", copy)
        (copy / name).unlink()
        if before is not None:
            (copy / name).write_bytes(before)


def test_weights_that_the_config_names_are_refused(copy: Path, tmp_path: Path, data: Path) -> None:
    for name in ("adapter_model.bin", "other.safetensors"):
        edit_json(copy / "config.json", transformers_weights=name)
        for command in (("inspect", copy), ("evaluate", copy, "--data", data)):
            message = refused(*command)
            assert "transformers_weights" in message
            assert name in message


def test_one_file_beside_an_index_that_names_others_is_refused(copy: Path, data: Path) -> None:
    save_model(load_model(copy), copy.parent / "shards", max_shard_size="100KB")
    shutil.copyfile(copy / "model.safetensors", copy.parent / "shards" / "model.safetensors")
    for command in ("inspect", copy.parent / "shards"), ("evaluate", copy.parent / "shards", "--data", data):
        assert "its index does not name: model.safetensors" in refused(*command)


def test_the_error_for_a_lora_directory_says_so(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    for folder in (tmp_path / "lora", copy):
        (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}', "utf-8")
        (folder / "adapter_model.safetensors").write_bytes(b"")
        message = refused("inspect", folder)
        assert "LoRA adapter (adapter_config.json)" in message
        assert "merge_and_unload()" in message


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_the_error_for_a_git_lfs_pointer_says_so(copy: Path, name: str) -> None:
    (copy / name).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 2336927755350992246\nutf-8", "utf-8"
    )
    message = refused("inspect", copy)
    assert f"{name} is a git-lfs pointer" in message
    assert "git lfs pull" in message


@pytest.mark.parametrize("kept", [12, 5_000, -1])
def test_the_error_for_a_file_cut_short_says_so(copy: Path, kept: int) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    message = refused("inspect", copy)
    assert f"{path} is cut short: it has {path.stat().st_size} bytes" in message
    assert "fetch it again" in message


def entry(begin: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "size", "said"),
    [
        (json.dumps({"a": entry(0, 8), "b": entry(12, 16)}), 16, "b begins after a hole"),
        (json.dumps({"a": entry(4, 8)}), 8, "a begins after a hole"),
        (json.dumps({"a": entry(0, 8), "b": entry(4, 12)}), 12, "b overlaps"),
        (json.dumps({"a": entry(0, 8)}), 9, "1 bytes stand after its last tensor"),
        (json.dumps({"a": entry(0, 8)}), 7, "is cut short"),
        (json.dumps({"a": entry(0, 8) | {"shape": [3]}}), 8, "a has another size"),
        (json.dumps({"a": entry(0, 8) | {"shape": [True, 2]}}), 8, "does not say where a lies"),
        (json.dumps({"a": entry(0, 8) | {"dtype": [1]}}), 8, "does not say where a lies"),
        (json.dumps({"__metadata__": 3, "a": entry(0, 8)}), 8, "__metadata__"),
        (json.dumps({"__metadata__": {"format": 3}, "a": entry(0, 8)}), 8, "__metadata__"),
        ('{"a": ' + "[" * 100_000, 0, "nested too deep"),
        ('{"a": ' + "[" * 150 + "]" * 150 + "}", 0, "nested too deep"),
        ('{"a": NaN}', 0, "NaN"),
        ("[1]", 0, "no safetensors file"),
        ('{"\udc80": 1}', 0, "not UTF-8"),
    ],
)
def test_a_header_is_read_as_strictly_as_safetensors_reads_it(copy: Path, header: str, size: int, said: str) -> None:
    """What the safetensors library refuses is refused here, with an error that names the fault."""
    text = header.encode("utf-8", "surrogateescape")
    (copy / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * size)
    with contextlib.suppress(SafetensorError):
        load_file(copy / "model.safetensors")
        pytest.fail("the library takes it")
    assert said in refused("inspect", copy)


def test_a_tensor_that_a_header_lists_twice_is_refused(copy: Path) -> None:
    one = json.dumps(entry(0, 8))
    text = f'{{"a": {one}, "a": {one}}}'.encode()
    (copy / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 8)
    assert "it has the key 'a' twice" in refused("inspect", copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_that_is_nan_or_infinite_is_refused_before_any_work(
    copy: Path, tmp_path: Path, data: Path, value: float, dtype: torch.dtype
) -> None:
    values = {name: tensor.to(dtype) for name, tensor in load_file(copy / "model.safetensors").items()}
    values["language_projection.bias"][3] = value
    save_file(values, copy / "model.safetensors", metadata={"format": "pt"})
    message = refused("prune", copy, "--axis", "ffn", "--remove", "16", "--data", data, "-o", tmp_path / "cut")
    assert f"{copy / 'model.safetensors'}: language_projection.bias holds NaN or infinity" in message
    assert not (tmp_path / "cut").exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", "[]", "this is a list"),
        ("config.json", "null", "this is null"),
        ("config.json", '{"a": ' * 100_000, "nested too deep"),
        ("config.json", '{"model_type": "llama", "rms_norm_eps": NaN}', "NaN"),
        ("config.json", '{"model_type": "llama", "rms_norm_eps": 1e999}', "too large for a number"),
        ("config.json", '{"model_type": "llama", "hidden_size": 1' + "0" * 5000 + "}", "not JSON"),
        ("generation_config.json", "[]", "this is a list"),
        ("processor_config.json", "3", "this is a number"),
        ("tokenizer_config.json", "null", "this is null"),
        ("COMPRESSION.json", "3", "this is no COMPRESSION.json"),
        ("COMPRESSION.json", "{", "this is no COMPRESSION.json"),
        ("COMPRESSION.json", '{"history": [3]}', "history.0"),
        ("COMPRESSION.json", '{"history": [{"cut": {"tower": 3}}]}', "history.0.cut.tower"),
        ("COMPRESSION.json", '{"history": {}}', "history"),
        ("COMPRESSION.json", '{"plan": {}, "run_key": "x"}', "plan.stages"),
        ("COMPRESSION.json", '{"teacher": 3}', "teacher"),
        (INDEX, '{"weight_map": {"a": 3}}', "the entry for a is 3"),
        (INDEX, '{"a": 3}', "it has no weight_map"),
        (INDEX, '{"weight_map": ["a"]}', "it has no weight_map"),
        (INDEX, '{"weight_map": {"a": "../b.safetensors"}}', "names no shard"),
        (INDEX, '{"weight_map": {"a": "/b.safetensors"}}', "names no shard"),
        (INDEX, '{"weight_map": {"a": "model.bin"}}', "names no shard"),
        (INDEX, '{"weight_map": {"a\\nerror: forged": "\\u001b[31m"}}', "a\\nerror: forged is '\\x1b[31m'"),
    ],
)
def test_a_damaged_file_is_a_one_line_error_of_every_command(
    copy: Path, tmp_path: Path, data: Path, name: str, text: str, said: str
) -> None:
    (copy / name).write_text(text, "utf-8")
    commands = (
        ("inspect", copy),
        ("evaluate", copy, "--data", data),
        ("prune", copy, "--axis", "block", "--remove", "1", "-o", tmp_path / "cut"),
    )
    for command in commands:
        assert said in refused(*command)
    assert not (tmp_path / "cut").exists()


def test_the_cuts_of_a_damaged_record_are_refused(copy: Path, tmp_path: Path) -> None:
    for text in ("3", "{", '{"history": [3]}', '{"teacher": 3, "history": []}'):
        (tmp_path / "record.json").write_text(text, "utf-8")
        message = refused("prune", copy, "--cuts", tmp_path / "record.json", "-o", tmp_path / "cut")
        assert "COMPRESSION.json" in message
    cut = {"tower": "language", "axis": "attention", "amount": 16, "keep": {}}
    told = {"teacher": digest_checkpoint(copy), "history": [{"cut": cut}]}
    (tmp_path / "record.json").write_text(json.dumps(told), "utf-8")
    assert "another model" in refused("prune", copy, "--cuts", tmp_path / "record.json", "-o", tmp_path / "cut")


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("text_config", {"num_hidden_layers": 1_000_000}),
        ("vision_config", {"num_hidden_layers": 10**9}),
        ("qformer_config", {"num_hidden_layers": -1}),
        (None, {"num_labels": 10**9}),
        ("text_config", {"hidden_size": 10**30}),
        ("vision_config", {"image_size": 10**12}),
        ("qformer_config", {"cross_attention_frequency": 0}),
        (None, {"text_config": 3}),
        (None, {"vision_config": []}),
        (None, {"num_query_tokens": "many"}),
    ],
)
def test_a_config_of_absurd_sizes_is_refused_quickly(copy: Path, part: str | None, changes: dict[str, Any]) -> None:
    refused("inspect", change_config(copy, part, **changes))


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "mllama", "paligemma", "gemma3", "llama5"])
def test_an_unsupported_family_is_not_reported_as_a_typing_mistake(tmp_path: Path, model_type: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), "utf-8")
    message = refused("inspect", tmp_path)
    assert "did you mean" not in message
    assert model_type in message


MARK = "from pathlib import Path\nPath({!r}).touch()\n"


AS_SCRIPT = "import sys; sys.argv[0] = 'bin/lmmpress'; from lmmpress.cli.app import main; main()"


@pytest.mark.parametrize("command", [["-m", "lmmpress.cli"], ["-P", "-c", AS_SCRIPT]])
@pytest.mark.parametrize("path", [None, ":", "{elsewhere}:"])
def test_the_command_imports_nothing_from_the_current_directory(
    tmp_path: Path, command: list[str], path: str | None
) -> None:
    """Neither through the path entry that `python -m` adds, nor through an empty entry of PYTHONPATH."""
    here = tmp_path / "here"
    here.mkdir()
    for name in ("typer", "rich", "torch", "typing", "lmmpress_plugin"):
        (here / f"{name}.py").write_text(MARK.format(str(tmp_path / "ran")), "utf-8")
    others = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    if path is not None:
        others["PYTHONPATH"] = path.format(elsewhere=tmp_path)
    started = [sys.executable, *command, "--help"]
    done = subprocess.run(started, cwd=here, env=others, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_processes_that_are_started_have_no_current_directory_on_their_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(tmp_path / "mine"), ""]))
    show = "import json, sys; print(json.dumps(sys.path))"
    (tmp_path / "show.py").write_text("import pathlib; pathlib.Path('ran').touch()", "utf-8")
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {show!r}])"]
    with inherited():
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, encoding="utf-8")
    told = json.loads(done.stdout)
    assert str(tmp_path / "mine") in told
    assert not {"", str(tmp_path)} & set(told)
    assert os.environ["PYTHONPATH"] == os.pathsep.join(["", str(tmp_path / "mine"), ""])
    assert "PYTHONSAFEPATH" not in os.environ
    assert environment(X="1")["X"] == "1"


def test_an_object_of_many_keys_with_one_duplicate_is_refused_quickly() -> None:
    """A search that compares every key with all others would take an hour."""
    keys = ", ".join(f'"{number}": 0' for number in [*range(400_000), 399_999])
    with pytest.raises(UserError, match="the key '399999' twice"):
        parse_mapping(f"{{{keys}}}".encode(), "header", unique=True)


def test_a_record_of_more_steps_than_any_run_has_is_refused(copy: Path) -> None:
    (copy / "COMPRESSION.json").write_text(json.dumps({"history": [{}] * 4097}), "utf-8")
    with pytest.raises(UserError, match=r"is no COMPRESSION\.json: history: List should have at most 4096 items"):
        read_checkpoint(copy)
