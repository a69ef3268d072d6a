"""Decides which files of a directory form its checkpoint. No other module decides this.

A directory may come from anywhere. Its checkpoint consists of the files that transformers needs, chosen by an allow
list of names and patterns: configs, tokenizer, processor, chat templates, safetensors weights, model card and licence,
COMPRESSION.json, and this library's own modelling file if the config uses it. All other files are ignored. The digest,
copies, uploads and the loading by transformers use exactly this set of files.

Nothing in the set names code: `auto_map` and similar keys are removed from the configs, except for our own model types.
Only regular files are accepted. A symlink is followed if its target lies inside the directory or is a blob of the same
Hugging Face cache; any other symlink is an error that names it. Needs neither torch nor transformers.
"""

import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmmpress.errors import UserError
from lmmpress.files.bounded import LFS_POINTER
from lmmpress.files.own_types import CLASSES, MODELING, OWN_PREFIX, class_entries, has_own_type, modeling_code
from lmmpress.files.strict_json import read_mapping
from lmmpress.printing.visible import visible
from lmmpress.progress import say

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
RECORD = "COMPRESSION.json"
SUMS = "SHA256SUMS"
_TEMPLATES = "additional_chat_templates"

_MIB = 1 << 20
_CONFIGS = (
    CONFIG,
    "generation_config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
_OBJECTS = ("special_tokens_map.json", "added_tokens.json", "chat_template.json")  # JSON objects, never naming code
VOCABULARY = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "tiktoken.model",
)
_LIMITS = (  # the largest allowed size in bytes, by file name
    {name: 16 * _MIB for name in (*_CONFIGS, *_OBJECTS, "chat_template.jinja", SUMS)}
    | {name: 256 * _MIB for name in (*VOCABULARY, INDEX, RECORD)}
    | {MODELING: _MIB}
)
_TEXT = re.compile(r"README\.md|(LICEN[SC]E|NOTICE|COPYING|USE_POLICY)([-_][-_A-Za-z0-9]*)?(\.(txt|md|rst))?", re.I)
_TEMPLATE = re.compile(rf"{_TEMPLATES}/[A-Za-z0-9][-_.A-Za-z0-9]*\.jinja")
_SHARD = re.compile(r"[A-Za-z0-9][-_.A-Za-z0-9]*\.safetensors")
_ADAPTER = re.compile(r"adapter_config\.json|adapter_model\.(safetensors|bin)|adapter_model-.*\.safetensors")
_CODE = (
    "auto_map",
    "custom_generate",
    "custom_pipelines",
    "fast_tokenizer_files",  # names a file outside the allow list
    "gguf_file",  # names a file at any path
    "audio_tokenizer",  # names a model at any path; transformers asks on the terminal whether to run its code
)
_KERNELS = re.compile(r"_?(attn|experts)_implementation(_internal)?")  # a value with a slash names code on a hub


@dataclass(frozen=True)
class Files:
    """The files of a checkpoint, by name.

    `taken`: files used unchanged, with their real paths. `rewritten`: the new bytes of files that named code.
    `weights`: the names in `taken` that are weight files. `left`: what is left out of the directory, for a message.
    """

    taken: dict[str, Path]
    rewritten: dict[str, bytes]
    weights: tuple[str, ...]
    left: tuple[str, ...]

    def without(self, names: Collection[str]) -> "Files":
        """A copy without the files of these names."""
        return replace(
            self,
            taken={name: path for name, path in self.taken.items() if name not in names},
            rewritten={name: data for name, data in self.rewritten.items() if name not in names},
            weights=tuple(name for name in self.weights if name not in names),
        )

    @property
    def are_clean(self) -> bool:
        """Whether the directory holds exactly the checkpoint's files, all unchanged."""
        return not self.left and not self.rewritten


def choose(checkpoint: Path) -> Files:
    """The files of the checkpoint in a directory.

    Raises UserError if the directory holds no checkpoint, if a symlink leads out of it, if a file is not regular, too
    large or a git-lfs pointer, if a config is not valid JSON, and if several sets of weights are possible.
    """
    entries = _entries(checkpoint)
    if adapters := sorted(name for name in entries if _ADAPTER.fullmatch(name)):
        raise UserError(
            f"{checkpoint} holds a LoRA adapter ({adapters[0]}), which is no whole model: load it with peft, "
            "merge_and_unload() it into its base model, save_pretrained() that, and use what was saved"
        )
    if CONFIG not in entries:
        raise UserError(f"{checkpoint} is no checkpoint: it has no {CONFIG}")
    taken: dict[str, Path] = {}
    left: list[str] = []
    weights = _weights(checkpoint, entries)
    for name, path in entries.items():
        if name in weights:
            limit: int | None = None
        elif (limit := _limit(name)) is None:
            left.append(name)
            continue
        _check_file(checkpoint, name, path, limit)
        if _TEXT.fullmatch(name) and not _is_text(path):
            left.append(name)
        else:
            taken[name] = path
    configs = {
        name: read_mapping(taken[name], _LIMITS[name], f"{checkpoint / name}")
        for name in (*_CONFIGS, *_OBJECTS)
        if name in taken
    }
    rewritten: dict[str, bytes] = {}
    for name in _CONFIGS:
        if name in configs:
            clean, removed_keys = _without_code(configs[name])
            if name == CONFIG:
                _refuse_other_weights(checkpoint, clean)
                clean = _with_own_code(clean)
            if clean != configs[name]:
                rewritten[name] = (json.dumps(clean, indent=2, ensure_ascii=False) + "\n").encode()
                left += [f"{key} of {name}" for key in removed_keys]
    if _is_ours(configs[CONFIG]):
        if MODELING not in taken or taken[MODELING].read_bytes() != modeling_code():
            rewritten[MODELING] = modeling_code()
    elif MODELING in taken:
        left.append(MODELING)
        del taken[MODELING]
    kept = {name: path for name, path in sorted(taken.items()) if name not in rewritten}
    return Files(kept, rewritten, tuple(name for name in weights if name in kept), tuple(dict.fromkeys(left)))


def may_belong(name: str) -> bool:
    """Whether to download a file of that name from a bucket: it can be part of a checkpoint, or it is needed for the
    error that explains why a directory is not a checkpoint."""
    return _limit(name) is not None or bool(_SHARD.fullmatch(name)) or name == "adapter_config.json"


def is_small(name: str) -> bool:
    """Whether a file of a checkpoint is none of its weight files."""
    return not name.endswith(".safetensors")


def say_what_is_left(checkpoint: Path, files: Files) -> None:
    """Print one line that lists what is left out of a directory, if anything is."""
    names = [visible(name) for name in files.left]
    if names:
        listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        say(f"left out of {visible(checkpoint)}: {listed} (no part of a checkpoint)")


def lay_out(files: Files, folder: Path, link: bool = False) -> None:
    """Write the files of a checkpoint into a folder: as copies, or with `link` as symlinks to the unchanged files."""
    for name, path in files.taken.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if link:
            (folder / name).symlink_to(path)
        else:
            shutil.copyfile(path, folder / name)
    for name, data in files.rewritten.items():
        (folder / name).write_bytes(data)


@contextmanager
def shown(checkpoint: Path) -> Iterator[Path]:
    """A temporary directory with the files of a checkpoint and nothing else, for transformers to load from."""
    with tempfile.TemporaryDirectory(prefix="lmmpress-") as folder:
        lay_out(choose(checkpoint), Path(folder), link=True)
        yield Path(folder)


def clean_config(checkpoint: Path) -> dict[str, Any]:
    """The config of a checkpoint, without keys that name code other than our own."""
    files = choose(checkpoint)
    if CONFIG in files.rewritten:
        config: dict[str, Any] = json.loads(files.rewritten[CONFIG])
        return config
    return read_mapping(files.taken[CONFIG], _LIMITS[CONFIG], f"{checkpoint / CONFIG}")


def weight_map(index: Path) -> dict[str, str]:
    """The shard file of every tensor, read from an index file. Raises UserError if the file is not an index."""
    shard_of = read_mapping(index, _LIMITS[INDEX]).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise UserError(f"{index} is no index of shards: it has no weight_map")
    for tensor, name in shard_of.items():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise UserError(f"{index} is no index of shards: the entry for {tensor} is {name!r}, which names no shard")
    return shard_of


def _entries(checkpoint: Path) -> dict[str, Path]:
    """The entries of a directory by name, with their real paths; the name of a folder ends with a slash.

    Only the folder of chat templates is searched for files, no other.
    """
    if not checkpoint.is_dir():
        raise UserError(f"{checkpoint} is no checkpoint: there is no such directory")
    root = Path(os.path.realpath(checkpoint))
    entries: dict[str, Path] = {}
    for folder in ("", f"{_TEMPLATES}/"):
        if folder and f"{_TEMPLATES}/" not in entries:
            continue
        for entry in sorted(os.scandir(checkpoint / folder), key=lambda entry: entry.name):
            name, real = folder + entry.name, Path(os.path.realpath(entry.path))
            if entry.is_symlink() and not _may_lead_to(real, root):
                raise UserError(
                    f"{checkpoint}: {name} is a link that leads out of the checkpoint; replace it by the file itself, "
                    "or remove it"
                )
            if not real.is_dir():
                entries[name] = real
            elif not entry.name.startswith("."):  # tools keep their own data in such folders: .git, .cache
                entries[f"{name}/"] = real
    if any(_TEMPLATE.fullmatch(name) for name in entries):
        del entries[f"{_TEMPLATES}/"]
    entries.pop(".gitattributes", None)  # every checkpoint of the hub has one: not worth a message
    return entries


def _may_lead_to(real: Path, root: Path) -> bool:
    """Whether a symlink in the directory `root` may have the target `real`: a file inside `root`, or a blob of the same
    Hugging Face cache."""
    if real.is_relative_to(root):
        return not any(part.startswith(".") for part in real.relative_to(root).parts)
    repository = root.parent.parent
    in_cache = root.parent.name == "snapshots" and repository.name.startswith("models--")
    return in_cache and real.parent == repository / "blobs"


def _limit(name: str) -> int | None:
    """The largest allowed size in bytes of a checkpoint's file of that name; None if a checkpoint has no such file."""
    if _TEXT.fullmatch(name) or _TEMPLATE.fullmatch(name):
        return 16 * _MIB
    return _LIMITS.get(name)


def _check_file(checkpoint: Path, name: str, path: Path, limit: int | None) -> None:
    try:
        status = path.stat()
    except OSError:
        raise UserError(f"{checkpoint}: {name} is a link to a missing file; fetch the checkpoint again") from None
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{checkpoint}: {name} is no regular file")
    if limit is not None and status.st_size > limit:
        raise UserError(f"{checkpoint}: {name} has {status.st_size} bytes; at most {limit} are allowed for this file")
    if status.st_size < 1024:
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise UserError(
                    f"{checkpoint}: {name} is a git-lfs pointer and not the file itself: run `git lfs pull` there, "
                    "or fetch the checkpoint again"
                )


def _is_text(path: Path) -> bool:
    try:
        return "\0" not in path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return False


def _weights(checkpoint: Path, entries: dict[str, Path]) -> tuple[str, ...]:
    """The names of the weight files: the shards in the index, or the one file without an index.

    Raises UserError if the directory holds weights beside those of the index.
    """
    if INDEX not in entries:
        return (WEIGHTS,) if WEIGHTS in entries else ()
    _check_file(checkpoint, INDEX, entries[INDEX], _LIMITS[INDEX])
    shards = tuple(sorted(set(weight_map(checkpoint / INDEX).values())))
    others = [name for name in entries if name == WEIGHTS or re.fullmatch(r"model-.*\.safetensors", name)]
    if unlisted := sorted(set(others) - set(shards)):
        raise UserError(
            f"{checkpoint} holds shards that its index does not name: {', '.join(unlisted)}; remove them or the index"
        )
    return shards


def _refuse_other_weights(checkpoint: Path, config: dict[str, Any]) -> None:
    if config.get("transformers_weights") is not None:
        raise UserError(
            f"{checkpoint}: its {CONFIG} names other weights (transformers_weights: "
            f"{config['transformers_weights']!r}); lmmpress reads {WEIGHTS} or the shards in {INDEX}: remove that key, "
            "and rename the weights"
        )


def _without_code(value: Any) -> tuple[Any, list[str]]:
    """A config without the keys that name code, at any depth; and the removed keys."""
    removed: list[str] = []

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        named = [key for key, inner in value.items() if _leads_elsewhere(key, inner)]
        removed.extend(named)
        return {key: walk(inner) for key, inner in value.items() if key not in named}

    return walk(value), removed


def _leads_elsewhere(key: str, value: Any) -> bool:
    """Whether a config's key makes transformers run code, or open files that are not part of the checkpoint."""
    if _KERNELS.fullmatch(key):
        return "/" in json.dumps(value)
    return key in _CODE or (key == "init_inputs" and bool(value))


def _with_own_code(config: dict[str, Any]) -> dict[str, Any]:
    """The config, with the entries that name our classes if its model type is our own."""
    if not _is_ours(config):
        return config
    return config | class_entries(config["model_type"].removeprefix(OWN_PREFIX))


def _is_ours(config: dict[str, Any]) -> bool:
    return has_own_type(config) and str(config["model_type"]).removeprefix(OWN_PREFIX) in CLASSES
