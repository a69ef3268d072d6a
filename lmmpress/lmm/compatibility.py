"""Makes processor and model fit each other: corrects settings that follow from the config, refuses other misfits.

Many versions of transformers have saved processors, and older ones left out settings that newer ones need. Then no
image reaches the model, or transformers fails with an error of its own. The settings are taken from the model's config
where it determines them.
"""

import json
from pathlib import Path
from typing import Any

from lmmpress.errors import UserError
from lmmpress.lmm.processor import tokenizer_of
from lmmpress.progress import say_once

Config = dict[str, Any]

FITTED = 1  # version of the corrections for a processor that did not pass images to the model (see `was_blind`)

_PREFIX_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}  # tokens of a vision tower before its patches
# settings of a saved tokenizer that processors of transformers apply to every prompt, although no caller asks for them
_CUTTING = ("max_length", "stride", "truncation", "truncation_strategy", "padding", "pad_to_multiple_of")
# settings of a processor that determine the number of tokens of an image
_COUNTING = ("patch_size", "num_additional_image_tokens", "vision_feature_select_strategy", "num_query_tokens")
_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_PROCESSOR_CONFIG, _IMAGE_PROCESSOR_CONFIG = "processor_config.json", "preprocessor_config.json"


def fitted(processor: Any, config: Config) -> Any:
    """Change the processor in place so that it fits the model of this config; a second call changes nothing.

    Each change is printed once, on stderr. Raises UserError if the two cannot belong together: a model with a vision
    tower but no image processor, different image tokens, or token ids beyond the embedding.
    """
    tokenizer = tokenizer_of(processor)
    where = f"{getattr(tokenizer, 'name_or_path', '') or 'the checkpoint'}"
    if "vision_config" in config and not sees(processor):
        raise UserError(f"{where}: the model sees pictures, but has no image processor; add its processor's files")
    if _cuts(processor, tokenizer):
        longest = tokenizer.init_kwargs.get("max_length")
        say_once(
            "the tokenizer was saved with truncation or padding"
            f"{f' to {longest} tokens' if longest else ''}; it is switched off, so that prompts stay complete"
        )
        _switch_cutting_off(tokenizer)
    for name, value in corrections(processor, config).items():
        has = getattr(processor, name, None)
        say_once(f"the processor's {name} is {has}, the model's config says {value}; the config is followed")
        setattr(processor, name, value)
    _check_tokens(processor, tokenizer, config, where)
    return processor


def corrections(processor: Any, config: Config) -> Config:
    """The settings of processor_config.json that have to change for the model of this config; mostly none.

    LLaVA has two settings that together give the number of image tokens. They are left unchanged if that is right.
    """
    return _corrections({name: getattr(processor, name, None) for name in _COUNTING}, config)


def _corrections(has: Config, config: Config) -> Config:
    wanted: Config = {}
    if "num_query_tokens" in config:
        wanted = {"num_query_tokens": config["num_query_tokens"]}
    elif "vision_config" in config:
        vision, strategy = config["vision_config"], config.get("vision_feature_select_strategy")
        wanted = {"patch_size": vision.get("patch_size")}
        prefix = _PREFIX_TOKENS.get(vision.get("model_type"))
        if prefix is not None and strategy is not None:
            extra, chosen = has.get("num_additional_image_tokens"), has.get("vision_feature_select_strategy")
            # an image has its patches and the prefix tokens; the strategy "default" removes one token
            added = extra - (chosen == "default") if isinstance(extra, int) else None
            if added != prefix - (strategy == "default"):
                wanted |= {"num_additional_image_tokens": prefix, "vision_feature_select_strategy": strategy}
    return {name: value for name, value in wanted.items() if value is not None and has.get(name) != value}


def was_blind(checkpoint: Path, config: Config) -> bool:
    """Whether images reach the model only because of `fitted`: true for a BLIP-2 processor saved by transformers before
    4.46. Results that were computed for such a checkpoint without `fitted` must not be used."""
    settings = _read_json(checkpoint / _PROCESSOR_CONFIG) or {}
    return "num_query_tokens" in config and settings.get("num_query_tokens") is None


def correct_files(folder: Path, config: Config) -> None:
    """Write the changes of `fitted` into the files of a checkpoint's copy, so that plain transformers does the same.

    `config` is the model's config with all defaults. Files that are right or missing are left alone.
    """
    settings = _read_json(folder / _PROCESSOR_CONFIG)
    if settings is not None or (folder / _IMAGE_PROCESSOR_CONFIG).is_file():
        before = settings or {"processor_class": "Blip2Processor" if "num_query_tokens" in config else "LlavaProcessor"}
        # 0 is the default of LLaVA's processor
        if changed := _corrections({"num_additional_image_tokens": 0} | before, config):
            _write_json(folder / _PROCESSOR_CONFIG, before | changed)
    tokenizer = _read_json(folder / _TOKENIZER)
    if tokenizer and (tokenizer.get("truncation") or tokenizer.get("padding")):
        _write_json(folder / _TOKENIZER, tokenizer | {"truncation": None, "padding": None})
    settings = _read_json(folder / _TOKENIZER_CONFIG)
    if settings and any(settings.get(name) for name in _CUTTING):
        _write_json(folder / _TOKENIZER_CONFIG, {key: value for key, value in settings.items() if key not in _CUTTING})


def sees(processor: Any) -> bool:
    """Whether a checkpoint's processor takes images."""
    return getattr(processor, "image_processor", None) is not None


def puts_image_in_front(processor: Any) -> bool:
    """Whether a processor itself puts the image in front of the question, as BLIP-2's does."""
    return hasattr(processor, "num_query_tokens")


def image_token(processor: Any) -> str:
    """The text that marks the image's position."""
    return str(getattr(processor, "image_token", "<image>"))


def _cuts(processor: Any, tokenizer: Any) -> bool:
    """Whether the processor would truncate or pad prompts although no caller asks for it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    saved = backend is not None and (backend.truncation is not None or backend.padding is not None)
    return saved or any(tokenizer.init_kwargs.get(name) for name in _CUTTING)


def _switch_cutting_off(tokenizer: Any) -> None:
    for name in _CUTTING:
        tokenizer.init_kwargs.pop(name, None)
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        backend.no_truncation()
        backend.no_padding()


def _check_tokens(processor: Any, tokenizer: Any, config: Config, where: str) -> None:
    rows = config.get("text_config", config).get("vocab_size")
    most = max(tokenizer.get_vocab().values(), default=-1)
    if rows is not None and most >= rows:
        token = tokenizer.convert_ids_to_tokens(most)
        raise UserError(
            f"{where}: the tokenizer has ids up to {most} ({token!r}), the model's embedding has {rows} rows; use the "
            "tokenizer that belongs to the model, or resize the embedding to this one (resize_token_embeddings)"
        )
    if "vision_config" not in config:
        return
    token, config_id = image_token(processor), config.get("image_token_index", config.get("image_token_id"))
    token_id = tokenizer.convert_tokens_to_ids(token)
    if config_id is None:
        raise UserError(
            f'{where}: config.json does not say which token stands for a picture; add "image_token_index": {token_id}, '
            f"the tokenizer's {token}"
        )
    if token_id != config_id:
        raise UserError(
            f"{where}: image_token_index is {config_id} in config.json, but the tokenizer's {token} is {token_id}; one "
            "of the two is from another model"
        )


def _read_json(path: Path) -> Config | None:
    """The JSON object in a file of a checkpoint; None if there is no file or it holds no object."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _write_json(path: Path, value: Config) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
