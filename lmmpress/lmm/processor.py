"""Loads a checkpoint's processor, which converts text to tokens and images to pixels.

Its files are untrusted. transformers uses their classes, sizes and text rules without checks, so they are checked
first: only classes of the right kind are looked up, no size exceeds what the model takes, and no rule makes a text many
times longer. Then the processor is tried once on a word and a blank image.
"""

import json
from collections.abc import Iterator, Sequence
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
_MOST_TOKENS = 1 << 16  # of an image, if the config has no limit for the text
_LEAST_PIXELS = 2048  # the side that an image may always have, however small the vision tower's image size is
_MOST_ADDED = 1 << 16
_MOST_RULES = 1000  # of a normalizer or a similar part; each rule is a pass over the text
_MOST_GROWTH = 64  # how many times longer all rules of a tokenizer together may make a text
_LARGEST_CHARSMAP = 8 << 20  # characters

PASSED_ON = (UserError, KeyboardInterrupt, SystemExit, GeneratorExit)
"""Exceptions that are not caused by a processor's files. All others are, even panics of the tokenizers library, which
are not subclasses of Exception."""


def load_processor(checkpoint: Path) -> Any:
    """Load the checkpoint's processor, or its tokenizer if the model takes no images.

    Raises UserError if there is none, if it is damaged or exceeds the model's limits, or if it does not give tokens and
    pixels.
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
        except BaseException as error:  # any exception of transformers here is caused by the untrusted files
            reason = first_line(error).replace(str(folder), str(checkpoint))
            lacks = _lacks(folder, VOCABULARY) or ("vision_config" in config and _lacks(folder, _PROCESSORS[:2]))
            raise UserError(f"{checkpoint}: no processor or tokenizer: {lacks or reason}") from None
        # without files transformers makes an empty tokenizer; only a byte tokenizer needs no file
        if getattr(type(tokenizer_of(processor)), "vocab_files_names", None) and (lacks := _lacks(folder, VOCABULARY)):
            raise UserError(f"{checkpoint}: no tokenizer: {lacks}")
    tokenizer_of(processor).name_or_path = str(checkpoint)  # the folder that transformers loaded from is removed
    _check_loaded(checkpoint, processor, config)
    return processor


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor from `load_processor`, which may be the tokenizer itself."""
    return getattr(processor, "tokenizer", processor)


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of an answer's tokens, without special tokens and without spaces around it."""
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _lacks(folder: Path, names: tuple[str, ...]) -> str | None:
    """A message if the folder has none of these files; None if it has one."""
    if any((folder / name).is_file() for name in names):
        return None
    return f"it has none of {', '.join(names)}; copy them from the original model"


def _check_files(checkpoint: Path, folder: Path, config: dict[str, Any]) -> None:
    """Raise UserError if the files of a processor have wrong classes, sizes or rules."""
    from transformers import FeatureExtractionMixin, ImageProcessingMixin, ProcessorMixin
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    kinds = {
        "tokenizer_class": ("tokenizer", PreTrainedTokenizerBase),
        "processor_class": ("processor", ProcessorMixin),
        "image_processor_type": ("image processor", ImageProcessingMixin),
        "video_processor_type": ("video processor", ImageProcessingMixin),  # the base class of video processors
        "feature_extractor_type": ("feature extractor", (FeatureExtractionMixin, ImageProcessingMixin)),
    }
    settings = {"config.json": config}
    for name in ("tokenizer_config.json", *_PROCESSORS):
        if (folder / name).is_file():
            settings[name] = read_mapping(folder / name, _LARGEST, str(checkpoint / name))
    for name, values in settings.items():
        for key, value in _values(values):
            if key in kinds and value is not None:
                _check_class(f"{checkpoint / name}: {key}", value, *kinds[key])
    for name in _PROCESSORS:
        values = settings.get(name, {})
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
    """Raise UserError if there are more added tokens than the model has: each costs far more than a usual token."""
    text = config.get("text_config")
    rows = (text if isinstance(text, dict) else config).get("vocab_size")
    most = min(rows, _MOST_ADDED) if type(rows) is int else _MOST_ADDED
    if isinstance(tokens, list) and len(tokens) > most:
        raise UserError(f"{where} has {len(tokens)} tokens; this model takes {most} at most")


def _values(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a nested mapping, at any depth, with its value."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _values(inner)


def _check_class(where: str, name: Any, kind: str, base: type | tuple[type, ...]) -> None:
    import transformers

    if not isinstance(name, str):
        raise UserError(f"{where} is {str(name)[:40]!r}, but should name a class")
    try:
        named = getattr(transformers, name, None)
    except Exception:  # the class lacks an import; transformers reports that better when it loads the class
        return
    if named is None or hasattr(named, "_backends"):
        return
    if not isinstance(named, type) or not issubclass(named, base):
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
    """Raise UserError if the rules of a tokenizer, applied one after another, may make a text many times longer."""
    if sum(key == "type" for key, _ in _values(rules)) > _MOST_RULES:
        raise UserError(f"{where} has more than {_MOST_RULES} rules; no model needs that")
    if prod(_growths(rules)) > _MOST_GROWTH:
        raise UserError(f"{where} may make a text more than {_MOST_GROWTH} times longer; no model needs that")


def _growths(rule: Any) -> Iterator[float]:
    """The largest factor by which each rule may lengthen a text; rules that add a small constant are left out."""
    if isinstance(rule, list):
        for inner in rule:
            yield from _growths(inner)
    if not isinstance(rule, dict):
        return
    if rule.get("type") == "Replace":
        pattern, content = rule.get("pattern"), str(rule.get("content", ""))
        literal = pattern.get("String") if isinstance(pattern, dict) else None
        # a regular expression may match every character, and also between two characters
        yield max(1.0, len(content) / len(literal)) if isinstance(literal, str) and literal else 2.0 * len(content) + 1
    elif rule.get("type") == "Precompiled":
        yield 4.0 if len(str(rule.get("precompiled_charsmap"))) <= _LARGEST_CHARSMAP else float("inf")
    elif rule.get("type") == "TemplateProcessing":
        yield max(1.0, *(str(rule.get(name)).count("'Sequence'") / 2 for name in ("single", "pair")))
    elif rule.get("type") == "Prepend" and len(str(rule.get("prepend", ""))) > _MOST_GROWTH:
        yield float("inf")
    for inner in rule.values():
        yield from _growths(inner)


def _check_loaded(checkpoint: Path, processor: Any, config: dict[str, Any]) -> None:
    """Raise UserError if a loaded processor has no tokenizer, or fails on a word and a blank image."""
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
    except BaseException as error:  # any exception here is caused by the untrusted settings
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{checkpoint}: its processor fails on a word and a blank picture: {reason}") from None
    if not all(type(token) is int for token in tokens) or max(sides) > _most_pixels(config):
        raise UserError(f"{checkpoint}: its processor makes no tokens, or pictures larger than the model takes")
