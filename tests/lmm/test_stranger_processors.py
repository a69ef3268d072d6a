"""Foreign tokenizers and processors: a one-line error where they are damaged, hostile or of another kind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.files import edit_json

from lmmpress.data import read_split
from lmmpress.errors import UserError
from lmmpress.files.allow_list import choose
from lmmpress.lmm.examples import check_rows
from lmmpress.lmm.processor import load_processor
from lmmpress.lmm.read_anatomy import complete, read_config


def refused(checkpoint: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_processor(checkpoint)
    assert len(caught.value.lines) == 1
    return str(caught.value)


@pytest.mark.parametrize("text", ["null", "[]", "3", "{", '{"model": ' * 100_000, "{}", '{"model": {"type": "Evil"}}'])
def test_an_invalid_tokenizer_is_a_one_line_error(copy: Path, text: str) -> None:
    (copy / "tokenizer.json").write_text(text, "utf-8")
    assert str(copy) in refused(copy)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["tokenizer.json", "tokenizer_config.json"], "it has none of tokenizer.json, tokenizer.model, "),
        (["processor_config.json"], "it has none of processor_config.json, preprocessor_config.json; copy them from"),
    ],
)
def test_missing_files_are_named(copy: Path, names: list[str], said: str) -> None:
    """Transformers would make an empty tokenizer without files, and its error for a missing processor is about the
    hub."""
    for name in names:
        (copy / name).unlink()
    assert said in refused(copy)


@pytest.mark.parametrize("name", ["BertModel", "pipeline", "models", "Blip2Processor", ["PreTrainedTokenizerFast"], 3])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
def test_only_tokenizer_classes_are_looked_up(copy: Path, name: int | list[str] | str, file: str) -> None:
    edit_json(copy / file, tokenizer_class=name)
    message = refused(copy)
    assert f"{copy / file}: tokenizer_class is" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"processor_class": "BertModel"}, "processor_class is 'BertModel', which is no processor"),
        ({"processor_class": "BertTokenizer"}, "which is no processor"),
        ({"image_processor": {"image_processor_type": "BertModel"}}, "which is no image processor"),
        ({"image_processor": 3}, "image_processor is no JSON object"),
        ({"num_query_tokens": 10**9}, "num_query_tokens is 1000000000"),
        ({"num_query_tokens": "4"}, "num_query_tokens is '4'"),
        ({"num_query_tokens": -1}, "num_query_tokens is -1"),
    ],
)
def test_a_processor_of_another_kind_or_size_is_a_one_line_error(
    copy: Path, changes: dict[str, Any], said: str
) -> None:
    edit_json(copy / "processor_config.json", **changes)
    assert said in refused(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 0},
        {"size": 10**6},
        {"size": {"height": 10**6, "width": 16}},
        {"size": {"height": "16", "width": 16}},
        {"size": {"height": 16.5, "width": True}},
        {"size": {}},
        {"do_center_crop": True, "crop_size": {"height": 10**9, "width": 10**9}},
        {"patch_size": 10**9},
        {"image_mean": "red"},
        {"image_mean": [0.5]},
        {"resample": 10**9},
        {"rescale_factor": "half"},
    ],
)
def test_sizes_of_pictures_are_bounded_by_what_the_model_takes(copy: Path, changes: dict[str, Any]) -> None:
    told = json.loads((copy / "processor_config.json").read_text("utf-8"))
    told["image_processor"] |= changes
    (copy / "processor_config.json").write_text(json.dumps(told), "utf-8")
    assert str(copy) in refused(copy)


DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@pytest.mark.parametrize(
    ("part", "rules"),
    [
        ("normalizer", {"type": "Sequence", "normalizers": [DOUBLING] * 40}),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [DOUBLING] * 4}] * 10}),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": ""}, "content": "a" * 1000}),
        ("normalizer", {"type": "Prepend", "prepend": "a" * 100_000}),
        ("decoder", {"type": "Sequence", "decoders": [DOUBLING] * 40}),
    ],
)
def test_rules_that_make_a_text_many_times_longer_are_refused_before_they_are_used(
    copy: Path, part: str, rules: dict[str, Any]
) -> None:
    edit_json(copy / "tokenizer.json", **{part: rules})
    assert f"its {part} may make a text more than 64 times longer" in refused(copy)


def test_the_rules_of_usual_tokenizers_are_accepted(copy: Path) -> None:
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    rules = [
        {"type": "Prepend", "prepend": "▁"},
        spaces,
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
    ]
    edit_json(copy / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [{"type": "NFKC"}, *rules]})
    assert load_processor(copy).tokenizer("红色")["input_ids"]


def test_a_checkpoint_without_a_tokenizer_says_so(
    copy: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    text = shutil.copytree(make_checkpoint("text-glm"), tmp_path / "text")
    for path in text.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer" in refused(text)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        (
            "processor_config.json",
            "audio_tokenizer",
            {"audio_tokenizer_class": "AutoModel", "audio_tokenizer_name_or_path": "../outside"},
        ),
        ("tokenizer_config.json", "gguf_file", "../outside/model.gguf"),
    ],
)
def test_a_model_or_file_elsewhere_that_a_processor_names_is_not_opened(
    copy: Path,
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    key: str,
    value: dict[str, Any] | str,
) -> None:
    shutil.copytree(make_checkpoint("text-glm"), tmp_path / "outside")
    edit_json(tmp_path / "outside" / "config.json", auto_map={"AutoConfig": "evil.X"}, model_type="evil")
    monkeypatch.chdir(copy)  # a path in the file may be one from here
    edit_json(copy / file, **{key: value})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("transformers asks whether to run code"))
    assert type(load_processor(copy)).__name__ == "Blip2Processor"
    files = choose(copy)
    assert key not in json.loads(files.rewritten[file])
    assert f"{key} of {file}" in files.left


@pytest.mark.parametrize("file", ["processor_config.json", "video_preprocessor_config.json"])
@pytest.mark.parametrize(
    ("key", "kind"), [("video_processor_type", "video processor"), ("feature_extractor_type", "feature extractor")]
)
def test_only_classes_of_the_kind_that_a_key_is_for_are_looked_up(copy: Path, file: str, key: str, kind: str) -> None:
    edit_json(copy / file, part={key: "BertModel"})
    assert f"{copy / file}: {key} is 'BertModel', which is no {kind}" in refused(copy)


def test_a_pattern_that_the_tokenizers_library_rejects_is_a_one_line_error_with_its_row(copy: Path, data: Path) -> None:
    """The library panics then, which in Python is not an Exception."""
    pattern = {"type": "Split", "pattern": {"Regex": "(图+)+$"}, "behavior": "Isolated", "invert": False}
    edit_json(copy / "tokenizer.json", pre_tokenizer=pattern)
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text("utf-8").splitlines()[:1]]
    folder = shutil.copytree(data, copy.parent / "rows")
    rows[0] |= {"question": "图" * 3000 + "!", "split": "test"}
    (folder / "metadata.jsonl").write_text(json.dumps(rows[0]) + "\n", "utf-8")
    with pytest.raises(UserError, match=r"line 1, asking '图.*the checkpoint's processor fails at this row") as caught:
        check_rows(read_split(folder, "test"), load_processor(copy), complete(read_config(copy)))
    assert len(caught.value.lines) == 1


def test_rules_and_added_tokens_of_any_number_are_refused_before_they_are_used(copy: Path) -> None:
    edit_json(copy / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [{"type": "Lowercase"}] * 1001})
    assert "its normalizer has more than 1000 rules" in refused(copy)
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    many = [token | {"id": number, "content": f"x{number}"} for number in range(30)]
    edit_json(copy / "tokenizer.json", normalizer=None, added_tokens=many)
    assert "added_tokens has 30 tokens; this model takes 29 at most" in refused(copy)
