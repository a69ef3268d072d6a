"""Accuracy is that of plain greedy generation: generation settings that would change it are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.plain import plain_tokens
from support.tiny import MODELS, config_of, make_model, save_model
from support.training import train_for_a_moment
from transformers import GenerationConfig

from lmmpress.data import Split, read_split
from lmmpress.errors import UserError
from lmmpress.evaluation.accuracy import answered_right
from lmmpress.evaluation.evaluate_checkpoint import evaluate_checkpoint
from lmmpress.evaluation.greedy import CHANGES_ANSWERS, check_greedy, end_tokens, generation_settings
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.examples import encode
from lmmpress.lmm.processor import load_processor, tokenizer_of
from lmmpress.plan import Evaluation

# Settings that plain greedy generation does not look at, that end an answer by its length alone, or that name tokens
# which are checked apart from these.
WITHOUT_EFFECT = {
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "bos_token_id",
    "cache_config",
    "compile_config",
    "continuous_batching_config",
    "decoder_start_token_id",
    "disable_compile",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "eos_token_id",
    "epsilon_cutoff",
    "eta_cutoff",
    "is_assistant",
    "length_penalty",
    "low_memory",
    "max_cache_len",
    "max_length",
    "max_matching_ngram_size",
    "max_new_tokens",
    "min_p",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "prefill_chunk_size",
    "remove_invalid_values",
    "renormalize_logits",
    "return_dict_in_generate",
    "target_lookbehind",
    "temperature",
    "top_h",
    "top_k",
    "top_p",
    "transformers_version",
    "typical_p",
    "use_cache",
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ACCEPTED: list[dict[str, Any]] = [
    {"do_sample": True, "temperature": 0.3, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.9},
    {"max_length": 3, "length_penalty": 2.0, "early_stopping": True},
    {"max_new_tokens": 1},
    {"min_length": 0, "min_new_tokens": 0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1},
    {"suppress_tokens": [], "renormalize_logits": True, "remove_invalid_values": True, "use_cache": False},
    {"cache_implementation": "static"},
    {"eos_token_id": [2, 7]},
    {"eos_token_id": [2, 5, 6, 8, 9, 10, 11, 12, 13, 14]},
    {"pad_token_id": 5},
    {"pad_token_id": None},
    {"chat_format": "chatml"},
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"min_new_tokens": 4}, "min_new_tokens to 4"),
    ({"min_length": 30}, "min_length to 30"),
    ({"repetition_penalty": 1.05}, "repetition_penalty to 1.05"),
    ({"no_repeat_ngram_size": 2}, "no_repeat_ngram_size to 2"),
    ({"bad_words_ids": [[9]]}, "bad_words_ids"),
    ({"suppress_tokens": [9]}, "suppress_tokens"),
    ({"begin_suppress_tokens": [9]}, "begin_suppress_tokens"),
    ({"forced_bos_token_id": 9}, "forced_bos_token_id to 9"),
    ({"forced_eos_token_id": 2}, "forced_eos_token_id to 2"),
    ({"sequence_bias": [[[9], 4.0]]}, "sequence_bias"),
    ({"num_beams": 3}, "num_beams to 3"),
    ({"num_return_sequences": 2}, "num_return_sequences"),
    ({"penalty_alpha": 0.6}, "penalty_alpha to 0.6"),
    ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens"),
    ({"stop_strings": "。"}, "stop_strings"),
    ({"max_time": 1.0}, "max_time"),
    ({"cache_implementation": "quantized"}, "cache_implementation to 'quantized'"),
    ({"eos_token_id": 7}, r"eos_token_id 7, but the tokenizer's end token is '</s>' \(2\)"),
    ({"eos_token_id": [7, 8]}, r"eos_token_id \[7, 8\], but the tokenizer's end token is '</s>' \(2\)"),
    ({"eos_token_id": None}, "eos_token_id None, but the tokenizer's end token"),
    ({"eos_token_id": "</s>"}, "eos_token_id is '</s>', which is no token"),
]


def changed(checkpoint: Path, target: Path, settings: Any) -> Path:
    """A copy of a checkpoint with these generation settings."""
    shutil.copytree(checkpoint, target)
    (target / "generation_config.json").write_text(json.dumps(settings), "utf-8")
    return target


@pytest.fixture
def text_only(make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path) -> tuple[Path, Split]:
    """A model of text alone that has learned some of its rows, and these rows."""
    folder = tmp_path / "rows"
    folder.mkdir()
    lines = []
    for line in (data / "metadata.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        del row["file_name"]
        lines.append(json.dumps(row | {"question": row["question"] + row["answer"]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines), "utf-8")

    checkpoint = make_checkpoint("text-glm")
    model, split = load_model(checkpoint), read_split(folder, "distill")
    examples = encode(split, load_processor(checkpoint), read_checkpoint(checkpoint).config)
    train_for_a_moment(model, examples, read_checkpoint(checkpoint))
    taught = tmp_path / "taught"
    shutil.copytree(checkpoint, taught)
    save_model(model, taught)
    return taught, split


def test_every_setting_of_transformers_is_known_to_change_answers_or_not_to() -> None:
    """A setting that a newer transformers adds must be classified here."""
    assert set(GenerationConfig().__dict__) <= set(CHANGES_ANSWERS) | WITHOUT_EFFECT


@pytest.mark.parametrize("kind", MODELS)
def test_the_settings_are_those_that_generate_takes(kind: str, tmp_path: Path) -> None:
    """They come from the file, or from the config where there is no file; BLIP-2's text model uses its own."""
    save_model(make_model(config_of(kind)), tmp_path)
    path = tmp_path / "generation_config.json"
    for settings in (None, TOKENS | {"eos_token_id": [2, 7], "no_repeat_ngram_size": 2}):
        path.unlink() if settings is None else path.write_text(json.dumps(settings), "utf-8")
        model = load_model(tmp_path)
        generating = model.get_submodule("language_model") if kind.startswith("blip2") else model
        config: Any = generating.generation_config
        assert generation_settings(tmp_path)[0].to_dict() == config.to_dict()


def test_accepted_generation_settings_do_not_change_accuracy(text_only: tuple[Path, Split], tmp_path: Path) -> None:
    taught, split = text_only
    seen = set()
    for number, settings in enumerate(ACCEPTED):
        checkpoint = changed(taught, tmp_path / str(number), TOKENS | settings)
        processor, anatomy = load_processor(checkpoint), read_checkpoint(checkpoint)
        tokenizer, ends = tokenizer_of(processor), end_tokens(checkpoint)
        check_greedy(checkpoint, tokenizer)
        model, examples = load_model(checkpoint), encode(split, processor, anatomy.config)
        right = answered_right(model, examples, None, None, 8, ends)
        for index, example in enumerate(examples.rows[:12]):
            (tokens,) = plain_tokens(model, processor, split, [split.rows[index]]).tolist()
            ended = next((place for place, token in enumerate(tokens) if token in ends), None)
            whole = ended is not None and tokens[:ended] == example.answer[:-1]
            assert bool(right[index]) == whole, (settings, tokens, example.answer)
        seen |= set(right[:12].tolist())
    assert seen == {True, False}


@pytest.mark.parametrize(("settings", "words"), REFUSED)
def test_generation_settings_that_change_answers_are_refused_in_one_line(
    make_checkpoint: Callable[..., Path], tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    checkpoint = changed(make_checkpoint("text-glm"), tmp_path / "it", TOKENS | settings)
    with pytest.raises(UserError, match=words) as caught:
        check_greedy(checkpoint, load_processor(checkpoint))
    assert len(caught.value.lines) == 1
    assert "generation_config.json" in str(caught.value)


def test_every_fault_has_a_line(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    settings = {"eos_token_id": 7, "min_new_tokens": 4}
    checkpoint = changed(make_checkpoint("text-glm"), tmp_path / "it", settings)
    with pytest.raises(UserError) as caught:
        check_greedy(checkpoint, load_processor(checkpoint))
    assert len(caught.value.lines) == 2


def test_only_the_generation_settings_that_are_used_are_checked(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """BLIP-2 generates with the settings in the text part of its config; its generation_config.json is not used."""
    source = make_checkpoint("llama")
    checkpoint = changed(source, tmp_path / "one", TOKENS | {"eos_token_id": 7, "min_new_tokens": 4})
    check_greedy(checkpoint, tokenizer_of(load_processor(checkpoint)))
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    config["text_config"]["eos_token_id"] = 7
    (checkpoint / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(UserError, match=r"config\.json, text_config has eos_token_id 7"):
        check_greedy(checkpoint, tokenizer_of(load_processor(checkpoint)))


@pytest.mark.parametrize("settings", [[], "text", 3, {"max_new_tokens": 0, "early_stopping": "x"}, {"top_k": {}}])
def test_the_error_for_invalid_generation_settings_names_the_file(
    make_checkpoint: Callable[..., Path], tmp_path: Path, settings: Any
) -> None:
    """Odd values without an effect are accepted."""
    checkpoint = changed(make_checkpoint("text-glm"), tmp_path / "it", settings)
    with pytest.raises(UserError, match=r"generation_config\.json"):
        check_greedy(checkpoint, load_processor(checkpoint))


def test_evaluate_refuses_such_generation_settings_too(
    make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    checkpoint = changed(make_checkpoint("text-glm"), tmp_path / "it", TOKENS | {"min_new_tokens": 4})
    with pytest.raises(UserError, match="min_new_tokens"):
        evaluate_checkpoint(checkpoint, data, "test", Evaluation())


def test_an_answer_that_ends_with_another_end_token_is_right_and_one_that_holds_it_is_not(
    text_only: tuple[Path, Split],
) -> None:
    """As in generation, which stops at any end token and leaves special tokens out of the text."""
    checkpoint, split = text_only
    model, anatomy = load_model(checkpoint), read_checkpoint(checkpoint)
    examples = encode(split, load_processor(checkpoint), anatomy.config)
    right = answered_right(model, examples, None, None, 8, frozenset({2}))
    every = frozenset(range(64))
    inside = answered_right(model, examples, None, None, 8, every)
    assert right.any()
    assert not inside.any()
    assert torch.equal(answered_right(model, examples, None, None, 8), right)
