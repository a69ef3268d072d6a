"""Checkpoints: Hugging Face directories that are read, cut, loaded, saved and named by their content."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import takewhile
from math import prod
from pathlib import Path
from typing import Any

import torch

from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy, Shape, Shapes
from lmmpress.lmm.apart import MODELING, is_apart, make_known, ship
from lmmpress.lmm.cut import Cut, TensorCut, compose
from lmmpress.lmm.families.registry import family_of
from lmmpress.lmm.read_anatomy import anatomy_of, config_after, read_config
from lmmpress.lmm.weights import INDEX, WeightFile, stored_shapes, sync, weight_files, write_weights

RECORD = "COMPRESSION.json"
Shard = tuple[str, list[tuple[str, Shape, torch.dtype]], Iterable[torch.Tensor]]  # file name, entries, values
_BLOCK = 1 << 22
_COMPUTED = (".position_ids", ".rotary_emb.inv_freq")  # buffers that old checkpoints hold and models compute


def digest_checkpoint(checkpoint: Path) -> str:
    """sha256 that names a checkpoint: over the names and the sha256 of its files, COMPRESSION.json left out.

    The name says what a model is; where it comes from does not change that.
    """
    return digest_manifest(manifest_of(checkpoint))


def manifest_of(checkpoint: Path) -> dict[str, str]:
    """The sha256 of every file of a checkpoint directory, by its name."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return {path.relative_to(checkpoint).as_posix(): _sha256(path) for path in files}


def digest_manifest(manifest: dict[str, str]) -> str:
    """The name of the checkpoint that consists of these files."""
    files = sorted((name, sha) for name, sha in manifest.items() if name != RECORD)
    return hashlib.sha256("".join(f"{name}\0{sha}\n" for name, sha in files).encode()).hexdigest()


def read_checkpoint(checkpoint: Path) -> Anatomy:
    """The anatomy of a checkpoint whose weights are exactly what its config says.

    Raises UserError for an unknown family, missing or unknown tensors, and shapes that contradict the config.
    """
    config = read_config(checkpoint)
    if config.get("quantization_config"):
        raise UserError(f"{checkpoint} is quantised; save its dequantised weights (model.dequantize()) and use those")
    anatomy = anatomy_of(config)
    stored = stored_in_model(checkpoint, config)
    if missing := sorted(anatomy.shapes.keys() - stored.keys() - _stored_under_ties(anatomy, stored)):
        raise UserError(f"{checkpoint} lacks tensors that its config asks for: {_some(missing)}")
    if unknown := sorted(stored.keys() - anatomy.shapes.keys() - anatomy.ties.keys()):
        raise UserError(
            f"{checkpoint} holds tensors that its config does not know: {_some(unknown)}; nothing is dropped silently, "
            "so remove them, or use the config that belongs to them"
        )
    wrong = [name for name, shape in stored.items() if name in anatomy.shapes and anatomy.shapes[name] != shape]
    if wrong:
        name = sorted(wrong)[0]
        raise UserError(
            f"{checkpoint}: weights contradict config.json: {name} is {list(stored[name])}, "
            f"the config says {list(anatomy.shapes[name])}; one of the two is from another model"
        )
    return anatomy


def name_in_model(config: dict[str, Any], stored: str) -> str:
    """The name that a stored tensor has in the model: its own in checkpoints of our own model types."""
    return stored if is_apart(config) else family_of(config).in_model(stored)


def stored_in_model(checkpoint: Path, config: dict[str, Any]) -> Shapes:
    """The shapes of all stored tensors by their names in the model, without buffers that models compute."""
    stored = stored_shapes(checkpoint)
    return {name_in_model(config, name): shape for name, shape in stored.items() if not name.endswith(_COMPUTED)}


def load_model(checkpoint: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """The model in evaluation mode, computing in `dtype`, loaded by transformers from the local files alone."""
    import transformers

    make_known()
    transformers.utils.logging.disable_progress_bar()  # one line per step is ours to print
    auto = getattr(transformers, family_of(read_config(checkpoint)).auto_class)
    model: torch.nn.Module = auto.from_pretrained(
        checkpoint, dtype=dtype, local_files_only=True, trust_remote_code=False
    )
    return model.eval()


def apply_cuts(source: Path, cuts: list[Cut], target: Path, record: dict[str, Any] | None = None) -> None:
    """Write the checkpoint that cuts in turn leave of `source` into the new directory `target`, a tensor at a time.

    Each cut speaks of the model that those before it left. Blocks that go and rows that go are not even read. What is
    not weights or config (tokenizer, processor, ...) is copied along, and `record` is written as COMPRESSION.json.
    Raises UserError where a cut was made for another model or cannot be expressed.
    """
    anatomy = read_checkpoint(source)
    config = config_after(anatomy, cuts)
    plan = TensorCut(anatomy, compose(anatomy, cuts))

    def shards() -> Iterator[Shard]:
        for path in weight_files(source):
            file = WeightFile(path)
            kept: dict[str, tuple[str, str]] = {}  # by name in the new file: its name here, and its owner in the model
            for stored in file:
                name = name_in_model(anatomy.config, stored)
                owner = anatomy.ties.get(name, name)
                if stored.endswith(_COMPUTED) or (renamed := plan.name(owner)) is None:
                    continue
                renamed = name if owner != name else renamed
                kept[renamed if is_apart(config) else _as_stored(stored, name, renamed)] = (stored, owner)
            entries = [
                (new, plan.shape(owner, file.shape(stored)), file.dtype(stored))
                for new, (stored, owner) in kept.items()
            ]
            yield path.name, entries, (plan.values(owner, file.tensor(stored)) for stored, owner in kept.values())

    _write(source, target, shards(), config, record)


def _as_stored(stored: str, before: str, after: str) -> str:
    """A stored tensor's new name, where its name in the model goes from `before` to `after`: only tails differ."""
    pairs = zip(reversed(stored), reversed(before), strict=False)
    tail = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return stored[: len(stored) - tail] + after[len(before) - tail :]


def save_trained(model: torch.nn.Module, source: Path, target: Path, record: dict[str, Any]) -> None:
    """Write a model trained from the checkpoint `source` as the new directory `target`, in the dtypes of `source`."""
    state, config = model.state_dict(), read_config(source)

    def shards() -> Iterator[Shard]:
        for path in weight_files(source):
            file = WeightFile(path)
            names = [name for name in file if not name.endswith(_COMPUTED)]
            values = (state[name_in_model(config, name)].detach().to("cpu", file.dtype(name)) for name in names)
            yield path.name, [(name, file.shape(name), file.dtype(name)) for name in names], values

    _write(source, target, shards(), config, record)


def _write(
    source: Path, target: Path, shards: Iterator[Shard], config: dict[str, Any], record: dict[str, Any] | None
) -> None:
    """Write the new checkpoint directory `target`: shards as they come, and what else belongs to it."""
    target.mkdir(parents=True)
    index: dict[str, str] = {}
    total = 0
    written = []
    for name, entries, values in shards:
        write_weights(target / name, entries, values)
        written.append(target / name)
        index |= dict.fromkeys((tensor for tensor, _, _ in entries), name)
        total += sum(prod(shape) * dtype.itemsize for _, shape, dtype in entries)
    if (source / INDEX).is_file():
        _write_json(target / INDEX, {"metadata": {"total_size": total}, "weight_map": index})
    _write_json(target / "config.json", config)
    if record is not None:
        _write_json(target / RECORD, record)
    _copy_companions(source, target)
    if is_apart(config):
        ship(target)
    sync(written)


def read_record(checkpoint: Path) -> dict[str, Any] | None:
    """What COMPRESSION.json says of where the checkpoint comes from; None for an original."""
    path = checkpoint / RECORD
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return record


def write_record(checkpoint: Path, record: dict[str, Any]) -> None:
    """Write COMPRESSION.json, which is no part of what names the checkpoint."""
    _write_json(checkpoint / RECORD, record)


def cuts_of(record: dict[str, Any]) -> list[Cut]:
    """Every cut that a COMPRESSION.json lists, in turn; UserError where it is none of ours."""
    try:
        return [Cut.model_validate(entry["cut"]) for entry in record["history"] if "cut" in entry]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"this is no {RECORD}: it lists no cuts") from None


def _copy_companions(source: Path, target: Path) -> None:
    weights = {path.name for path in weight_files(source)} | {INDEX, "config.json", RECORD, MODELING}
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.is_file() and relative.as_posix() not in weights and relative.name != "SHA256SUMS":
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / relative)


def _stored_under_ties(anatomy: Anatomy, stored: dict[str, Shape]) -> set[str]:
    return {name for alias, name in anatomy.ties.items() if alias in stored}


def _write_json(path: Path, value: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
