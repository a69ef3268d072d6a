"""Processor, model and rows fit each other: what follows from the model's config is put right, the rest is refused.

Processors are saved by many versions of transformers, and older ones did not say what newer ones need: then no picture
reaches the model, or transformers ends in an error of its own. What the config says for certain is taken from it.
"""

import json
from pathlib import Path
from typing import Any

from lmmpress.data import Row, Split
from lmmpress.errors import UserError
from lmmpress.lmm.processor import tokenizer_of
from lmmpress.progress import say_once

Config = dict[str, Any]

FITTED = 1  # the version of what is done for a checkpoint that was blind

_PREFIX_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}  # what a vision tower puts before its patches
# settings of a tokenizer that processors of transformers apply to every prompt, though nobody asks for it
_CUTTING = ("max_length", "stride", "truncation", "truncation_strategy", "padding", "pad_to_multiple_of")
# settings of a processor by which it counts the tokens of a picture
_COUNTING = ("patch_size", "num_additional_image_tokens", "vision_feature_select_strategy", "num_query_tokens")
_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_PROCESSOR_CONFIG, _IMAGE_PROCESSOR_CONFIG = "processor_config.json", "preprocessor_config.json"


def fitted(processor: Any, config: Config) -> Any:
    """The processor, changed so that it fits the model of that config; calling it again changes nothing.

    What is changed is said once, on stderr. Raises UserError where the two cannot belong together: a model that sees
    and has no image processor, image tokens that differ, and token ids beyond the embedding.
    """
    tokenizer = tokenizer_of(processor)
    where = f"{getattr(tokenizer, 'name_or_path', '') or 'the checkpoint'}"
    if "vision_config" in config and not sees(processor):
        raise UserError(f"{where}: the model sees pictures, and there is no image processor; add its processor's files")
    if _cuts(processor, tokenizer):
        longest = tokenizer.init_kwargs.get("max_length")
        say_once(
            "the tokenizer was saved with truncation or padding"
            f"{f' to {longest} tokens' if longest else ''}; it is switched off, so that prompts are whole"
        )
        _leave_whole(tokenizer)
    for name, value in mends(processor, config).items():
        has = getattr(processor, name, None)
        say_once(f"the processor's {name} is {has}, the model's config says {value}; the config is followed")
        setattr(processor, name, value)
    _check_tokens(processor, tokenizer, config, where)
    return processor


def mends(processor: Any, config: Config) -> Config:
    """What has to change in the processor for the model of that config: settings of processor_config.json, mostly none.

    Two settings of LLaVA's that are wrong each and right together are left.
    """
    return _mends({name: getattr(processor, name, None) for name in _COUNTING}, config)


def _mends(has: Config, config: Config) -> Config:
    wanted: Config = {}
    if "num_query_tokens" in config:
        wanted = {"num_query_tokens": config["num_query_tokens"]}
    elif "vision_config" in config:
        vision, strategy = config["vision_config"], config.get("vision_feature_select_strategy")
        wanted = {"patch_size": vision.get("patch_size")}
        prefix = _PREFIX_TOKENS.get(vision.get("model_type"))
        if prefix is not None and strategy is not None:
            extra, chosen = has.get("num_additional_image_tokens"), has.get("vision_feature_select_strategy")
            # beside its patches a picture has the prefix, less one where the strategy takes that away
            beside = extra - (chosen == "default") if isinstance(extra, int) else None
            if beside != prefix - (strategy == "default"):
                wanted |= {"num_additional_image_tokens": prefix, "vision_feature_select_strategy": strategy}
    return {name: value for name, value in wanted.items() if value is not None and has.get(name) != value}


def was_blind(checkpoint: Path, config: Config) -> bool:
    """Whether pictures reach the model only since `fitted` is there: BLIP-2's processor as transformers before 4.46
    saved it. What was computed of such a checkpoint before is not to be used again."""
    settings = _read_json(checkpoint / _PROCESSOR_CONFIG) or {}
    return "num_query_tokens" in config and settings.get("num_query_tokens") is None


def mend_files(folder: Path, config: Config) -> None:
    """Write into the files of a checkpoint's copy what `fitted` changes, so that plain transformers does the same.

    `config` is the model's with all defaults. Files that are right, or are not there, stay so.
    """
    settings = _read_json(folder / _PROCESSOR_CONFIG)
    if settings is not None or (folder / _IMAGE_PROCESSOR_CONFIG).is_file():
        held = settings or {"processor_class": "Blip2Processor" if "num_query_tokens" in config else "LlavaProcessor"}
        # what LLaVA's processor is without a word in its file
        if changed := _mends({"num_additional_image_tokens": 0} | held, config):
            _write_json(folder / _PROCESSOR_CONFIG, held | changed)
    tokenizer = _read_json(folder / _TOKENIZER)
    if tokenizer and (tokenizer.get("truncation") or tokenizer.get("padding")):
        _write_json(folder / _TOKENIZER, tokenizer | {"truncation": None, "padding": None})
    settings = _read_json(folder / _TOKENIZER_CONFIG)
    if settings and any(settings.get(name) for name in _CUTTING):
        _write_json(folder / _TOKENIZER_CONFIG, {key: value for key, value in settings.items() if key not in _CUTTING})


def sees(processor: Any) -> bool:
    """Whether a checkpoint's processor takes pictures."""
    return getattr(processor, "image_processor", None) is not None


def puts_image_in_front(processor: Any) -> bool:
    """Whether a processor puts the picture in front of the question itself, as BLIP-2's does."""
    return hasattr(processor, "num_query_tokens")


def asked(split: Split, row: Row, processor: Any) -> str:
    """The text that a processor is given for a row: its question, and for LLaVA `<image>` in front where it has none.

    Raises UserError for a row that the model cannot be asked.
    """
    if not sees(processor):
        if row.file_name is not None:
            raise UserError(
                f"{split.place(row)}: the row has an image, {row.file_name!r}, and the model takes text alone; leave "
                "out file_name, or use a model that sees"
            )
        return row.question
    token = _image_token(processor)
    if token in row.answer:
        raise UserError(f"{split.place(row)}: the answer holds {token}, which stands for a picture; take it out")
    if puts_image_in_front(processor):
        if row.file_name is None:
            raise UserError(f"{split.place(row)}: the row has no image, and BLIP-2 needs one; give it a file_name")
        if token in row.question:
            raise UserError(
                f"{split.place(row)}: the question holds {token}, and BLIP-2's processor puts the image in front "
                "itself; take it out"
            )
        return row.question
    places = row.question.count(token)
    if row.file_name is None and places:
        raise UserError(f"{split.place(row)}: the question holds {token}, and the row has no image; add its file_name")
    if places > 1:
        raise UserError(
            f"{split.place(row)}: the question holds {token} {places} times, and a row has one image; leave one"
        )
    return row.question if places or row.file_name is None else f"{token}\n{row.question}"


def _image_token(processor: Any) -> str:
    """The text that stands for a picture."""
    return str(getattr(processor, "image_token", "<image>"))


def _cuts(processor: Any, tokenizer: Any) -> bool:
    """Whether the processor would cut or fill prompts though nobody asks for it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    saved = backend is not None and (backend.truncation is not None or backend.padding is not None)
    return saved or any(tokenizer.init_kwargs.get(name) for name in _CUTTING)


def _leave_whole(tokenizer: Any) -> None:
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
            f"{where}: the tokenizer has ids up to {most} ({token!r}), the model's embedding {rows} rows; use the "
            "tokenizer that belongs to the model, or resize the embedding to this one (resize_token_embeddings)"
        )
    if "vision_config" not in config:
        return
    token, config_id = _image_token(processor), config.get("image_token_index", config.get("image_token_id"))
    token_id = tokenizer.convert_tokens_to_ids(token)
    if config_id is None:
        raise UserError(
            f'{where}: config.json does not say which token stands for a picture; add "image_token_index": {token_id}, '
            f"the tokenizer's {token}"
        )
    if token_id != config_id:
        raise UserError(
            f"{where}: image_token_index is {config_id} in config.json, and the tokenizer's {token} is {token_id}; one "
            "of the two is another model's"
        )


def _read_json(path: Path) -> Config | None:
    """What a JSON file of a checkpoint holds; None where there is none or it holds no object."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _write_json(path: Path, value: Config) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
