"""A checkpoint's processor: what makes tokens of text and pixels of pictures.

Its files may be anybody's. transformers takes classes, sizes and rules for text from them as they stand, so they are
looked at first: only classes of the right kind are looked up, nothing is larger than the model can take, and no rule
makes a text many times longer. Then the processor is tried once, on a word and a blank picture.
"""

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from lmmpress.errors import UserError
from lmmpress.files.allow_list import VOCABULARY, shown
from lmmpress.files.strict_json import read_mapping
from lmmpress.lmm.read_anatomy import first_line, read_config
from lmmpress.lmm.remote_code import make_known

_LARGEST = 256 << 20  # bytes of a file
_PROCESSORS = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_SIZES = ("size", "crop_size", "pad_size", "image_size", "size_divisor", "patch_size")
_COUNTS = ("num_query_tokens", "num_additional_image_tokens", "image_seq_length", "image_seq_len")
_MOST_TOKENS = 1 << 16  # of a picture, where the config says no limit of the text
_LEAST_PIXELS = 2048  # a side that every picture may have, however small the vision tower's
_MOST_ADDED = 1 << 16
_MOST_RULES = 1000  # of a normalizer or the like; each is a pass over a text
_MOST_GROWTH = 64  # how many times longer all rules of a tokenizer together may make a text
_LARGEST_CHARSMAP = 8 << 20  # characters

PASSED_ON = (UserError, KeyboardInterrupt, SystemExit, GeneratorExit)
"""What is no fault of a processor's files; all else is that its code raises, panics of the tokenizers library included,
which are no Exception."""


def load_processor(checkpoint: Path) -> Any:
    """The checkpoint's processor, or its tokenizer where it has no images.

    Raises UserError where there is none, or one that is damaged, too large for the model, or not of a kind that makes
    tokens and pixels.
    """
    from transformers import AutoProcessor

    config = read_config(checkpoint)
    make_known(config)
    with shown(checkpoint) as folder:
        _check_files(checkpoint, folder, config)
        try:
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except PASSED_ON:
            raise
        except BaseException as error:  # whatever strange files make transformers raise is the files' fault
            told = first_line(error).replace(str(folder), str(checkpoint))
            lacks = _lacks(folder, VOCABULARY) or ("vision_config" in config and _lacks(folder, _PROCESSORS[:2]))
            raise UserError(f"{checkpoint}: no processor or tokenizer: {lacks or told}") from None
        # transformers makes an empty tokenizer of nothing; a tokenizer of bytes needs no file
        if getattr(type(tokenizer_of(processor)), "vocab_files_names", None) and (lacks := _lacks(folder, VOCABULARY)):
            raise UserError(f"{checkpoint}: no tokenizer: {lacks}")
    tokenizer_of(processor).name_or_path = str(checkpoint)  # the folder that transformers was shown is gone
    _check_made(checkpoint, processor, config)
    return processor


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of what `load_processor` gave."""
    return getattr(processor, "tokenizer", processor)


def _lacks(folder: Path, names: tuple[str, ...]) -> str | None:
    """What to do where none of the files of those names is there; None where one is."""
    if any((folder / name).is_file() for name in names):
        return None
    return f"it has none of {', '.join(names)}; copy them from the original model"


def _check_files(checkpoint: Path, folder: Path, config: dict[str, Any]) -> None:
    """Raise UserError where the files of a processor are not what they should be."""
    from transformers import FeatureExtractionMixin, ImageProcessingMixin, ProcessorMixin
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    kinds = {
        "tokenizer_class": ("tokenizer", PreTrainedTokenizerBase),
        "processor_class": ("processor", ProcessorMixin),
        "image_processor_type": ("image processor", ImageProcessingMixin),
        "video_processor_type": ("video processor", ImageProcessingMixin),  # which those of videos are made of
        "feature_extractor_type": ("feature extractor", (FeatureExtractionMixin, ImageProcessingMixin)),
    }
    told = {"config.json": config}
    for name in ("tokenizer_config.json", *_PROCESSORS):
        if (folder / name).is_file():
            told[name] = read_mapping(folder / name, _LARGEST, str(checkpoint / name))
    for name, values in told.items():
        for key, value in _values(values):
            if key in kinds and value is not None:
                _check_class(f"{checkpoint / name}: {key}", value, *kinds[key])
    for name in _PROCESSORS:
        values = told.get(name, {})
        if not isinstance(values.get("image_processor", {}), dict):
            raise UserError(f"{checkpoint / name}: image_processor is no JSON object")
        for key, value in _values(values):
            _check_size(f"{checkpoint / name}: {key}", key, value, config)
    if (folder / "tokenizer.json").is_file():
        rules = read_mapping(folder / "tokenizer.json", _LARGEST, str(checkpoint / "tokenizer.json"))
        for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
            _check_growth(f"{checkpoint / 'tokenizer.json'}: its {part}", rules.get(part))
        _check_added(f"{checkpoint / 'tokenizer.json'}: added_tokens", rules.get("added_tokens"), config)


def _check_added(where: str, tokens: Any, config: dict[str, Any]) -> None:
    """Raise UserError where more tokens are added than the model has: each costs far more than a usual one."""
    text = config.get("text_config")
    rows = (text if isinstance(text, dict) else config).get("vocab_size")
    most = min(rows, _MOST_ADDED) if type(rows) is int else _MOST_ADDED
    if isinstance(tokens, list) and len(tokens) > most:
        raise UserError(f"{where} has {len(tokens)} tokens; this model takes {most} at most")


def _values(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a mapping, however deep it stands, with its value."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _values(inner)


def _check_class(where: str, name: Any, kind: str, base: type | tuple[type, ...]) -> None:
    import transformers

    if not isinstance(name, str):
        raise UserError(f"{where} is {str(name)[:40]!r}, and should name a class")
    try:
        found = getattr(transformers, name, None)
    except Exception:  # what a class lacks to be imported, transformers says better when it is loaded
        return
    if found is None or hasattr(found, "_backends"):
        return
    if not isinstance(found, type) or not issubclass(found, base):
        raise UserError(f"{where} is {name!r}, which is no {kind} of transformers")


def _check_size(where: str, key: str, value: Any, config: dict[str, Any]) -> None:
    if key in _COUNTS and value is not None:
        _check_number(where, value, 0, _most_tokens(config), "tokens")
    elif key in _SIZES and value is not None:
        numbers = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for number in numbers:
            if number is not None:
                _check_number(where, number, 1, _most_pixels(config), "pixels")


def _check_number(where: str, number: Any, least: int, most: int, what: str) -> None:
    if type(number) is not int or not least <= number <= most:
        raise UserError(f"{where} is {repr(number)[:40]}; this model takes {least} to {most} {what}")


def _most_tokens(config: dict[str, Any]) -> int:
    text = config.get("text_config")
    longest = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    return min(longest, _MOST_TOKENS) if type(longest) is int else _MOST_TOKENS


def _most_pixels(config: dict[str, Any]) -> int:
    vision = config.get("vision_config")
    side = vision.get("image_size") if isinstance(vision, dict) else None
    return max(8 * side, _LEAST_PIXELS) if type(side) is int and side < 1 << 14 else _LEAST_PIXELS


def _check_growth(where: str, rules: Any) -> None:
    """Raise UserError where rules of a tokenizer may make a text many times longer, each what the one before made."""
    if sum(key == "type" for key, _ in _values(rules)) > _MOST_RULES:
        raise UserError(f"{where} has more than {_MOST_RULES} rules; no model needs that")
    if prod(_growths(rules)) > _MOST_GROWTH:
        raise UserError(f"{where} may make a text more than {_MOST_GROWTH} times longer; no model needs that")


def _growths(rule: Any) -> Iterator[float]:
    """By how much each rule may make a text longer at most, where that is more than a small constant."""
    if isinstance(rule, list):
        for inner in rule:
            yield from _growths(inner)
    if not isinstance(rule, dict):
        return
    if rule.get("type") == "Replace":
        pattern, content = rule.get("pattern"), str(rule.get("content", ""))
        literal = pattern.get("String") if isinstance(pattern, dict) else None
        # a regular expression may match at every character, and between two of them
        yield max(1.0, len(content) / len(literal)) if isinstance(literal, str) and literal else 2.0 * len(content) + 1
    elif rule.get("type") == "Precompiled":
        yield 4.0 if len(str(rule.get("precompiled_charsmap"))) <= _LARGEST_CHARSMAP else float("inf")
    elif rule.get("type") == "TemplateProcessing":
        yield max(1.0, *(str(rule.get(name)).count("'Sequence'") / 2 for name in ("single", "pair")))
    elif rule.get("type") == "Prepend" and len(str(rule.get("prepend", ""))) > _MOST_GROWTH:
        yield float("inf")
    for inner in rule.values():
        yield from _growths(inner)


def _check_made(checkpoint: Path, processor: Any, config: dict[str, Any]) -> None:
    """Raise UserError where a processor is none, or does not do what it is for with a word and a blank picture."""
    from PIL import Image
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    tokenizer = tokenizer_of(processor)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UserError(f"{checkpoint}: no tokenizer, only a {type(processor).__name__}; it lacks its tokenizer files")
    raw = getattr(tokenizer, "backend_tokenizer", None)
    for part in ("normalizer", "decoder"):
        rules = getattr(raw, part, None)
        if rules is not None:
            _check_growth(f"{checkpoint}: its tokenizer's {part}", json.loads(rules.__getstate__()))
    try:
        tokens = tokenizer("a")["input_ids"]
        sides = [0]
        if (images := getattr(processor, "image_processor", None)) is not None:
            pixels = images(images=Image.new("RGB", (32, 24)), return_tensors="pt")["pixel_values"]
            sides = list(pixels.shape[-2:])
    except PASSED_ON:
        raise
    except BaseException as error:  # whatever strange settings make it raise is the settings' fault
        told = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{checkpoint}: its processor fails on a word and a blank picture: {told}") from None
    if not all(type(token) is int for token in tokens) or max(sides) > _most_pixels(config):
        raise UserError(f"{checkpoint}: its processor makes no tokens, or pictures larger than the model takes")
