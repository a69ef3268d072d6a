"""Checkpoints: Hugging Face directories that are read, cut, loaded, saved and named by their content."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from math import prod
from pathlib import Path
from typing import Any

import torch

from lmmpress.axes.cut import Cut
from lmmpress.axes.slices import Shape, Shapes
from lmmpress.errors import UserError
from lmmpress.files.allow_list import INDEX, RECORD, SUMS, WEIGHTS, choose, lay_out, say_what_is_left, shown
from lmmpress.files.own_types import MODELING, is_apart
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.cut import TensorCut, compose
from lmmpress.lmm.families.registry import family_of
from lmmpress.lmm.fit import mend_files
from lmmpress.lmm.read_anatomy import anatomy_of, complete, config_after, first_line, read_config
from lmmpress.lmm.record import read_record
from lmmpress.lmm.remote_code import make_known, ship
from lmmpress.lmm.weights import WeightFile, stored_shapes, sync, weight_files, write_weights

ONE_FILE = 64 << 20  # bytes of weights below which a checkpoint of one file stays one
_LARGEST_FILE = 5 << 30
_COMPUTED = (".position_ids", ".rotary_emb.inv_freq")  # buffers that old checkpoints hold and models compute


def read_checkpoint(checkpoint: Path) -> Anatomy:
    """The anatomy of a checkpoint whose weights are exactly what its config says.

    Raises UserError for an unknown family, missing or unknown tensors, shapes that contradict the config, and a damaged
    COMPRESSION.json.
    """
    read_record(checkpoint)
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

    config = read_config(checkpoint)
    make_known(config)
    transformers.utils.logging.disable_progress_bar()  # one line per step is ours to print
    auto = getattr(transformers, family_of(config).auto_class)
    with shown(checkpoint) as folder:
        try:
            model: torch.nn.Module = auto.from_pretrained(
                folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        except Exception as error:  # whatever strange files make transformers raise is the files' fault
            told = first_line(error).replace(str(folder), str(checkpoint))
            raise UserError(f"{checkpoint}: transformers cannot load it: {told}") from None
    return model.eval()


def apply_cuts(
    source: Path, anatomy: Anatomy, cuts: list[Cut], target: Path, record: dict[str, Any] | None = None
) -> None:
    """Write the checkpoint that cuts in turn leave of `source` into the new directory `target`, a tensor at a time.

    `anatomy` is the source's. Each cut speaks of the model that those before it left. Blocks that go and rows that go
    are not even read. What belongs to a checkpoint beside weights and config (tokenizer, processor, ...) is copied
    along, and `record` is written as COMPRESSION.json.
    Raises UserError where a cut was made for another model or cannot be expressed.
    """
    config = config_after(anatomy, cuts)
    plan = TensorCut(anatomy, compose(anatomy, cuts))

    def kept() -> Iterator[_Tensor]:
        for file in map(WeightFile, weight_files(source)):
            for stored in file:
                name = name_in_model(anatomy.config, stored)
                owner = anatomy.ties.get(name, name)
                if stored.endswith(_COMPUTED) or (renamed := plan.name(owner)) is None:
                    continue
                renamed = name if owner != name else renamed
                yield _Tensor(
                    renamed if is_apart(config) else _as_stored(stored, name, renamed),
                    _shard_of(anatomy, owner),
                    plan.shape(owner, file.shape(stored)),
                    file.dtype(stored),
                    partial(lambda file, stored, owner: plan.values(owner, file.tensor(stored)), file, stored, owner),
                )

    _write(source, target, list(kept()), config, record)


def _as_stored(stored: str, before: str, after: str) -> str:
    """A stored tensor's new name, where its name in the model goes from `before` to `after`: only tails differ."""
    pairs = zip(reversed(stored), reversed(before), strict=False)
    tail = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return stored[: len(stored) - tail] + after[len(before) - tail :]


def save_trained(model: torch.nn.Module, source: Path, anatomy: Anatomy, target: Path, record: dict[str, Any]) -> None:
    """Write a model trained from the checkpoint `source`, whose `anatomy` it has, as the new directory `target`, in the
    dtypes of `source`."""
    state, config = model.state_dict(), read_config(source)

    def trained() -> Iterator[_Tensor]:
        for file in map(WeightFile, weight_files(source)):
            for stored in file:
                name = name_in_model(config, stored)
                if not stored.endswith(_COMPUTED):
                    shard = _shard_of(anatomy, anatomy.ties.get(name, name))
                    value = partial(lambda name, dtype: state[name].detach().to("cpu", dtype), name, file.dtype(stored))
                    yield _Tensor(stored, shard, file.shape(stored), file.dtype(stored), value)

    _write(source, target, list(trained()), config, record)


@dataclass(frozen=True)
class _Tensor:
    """One tensor to be written: its stored name, which shard it belongs to, and how to make its value."""

    name: str
    shard: str
    shape: Shape
    dtype: torch.dtype
    value: Callable[[], torch.Tensor]

    @property
    def size(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def _shard_of(anatomy: Anatomy, tensor: str) -> str:
    """Image towers lie in shards of their own: while they stay as they are, so do the bytes of their files."""
    for name in anatomy.image_towers:
        if anatomy.towers[name].owns(tensor):
            return name
    return "image" if tensor.startswith(anatomy.image_side) else "language"


def _laid_out(source: Path, tensors: list[_Tensor]) -> dict[str, list[_Tensor]]:
    """The files of a checkpoint: one where `source` is one and the weights are few; else by shard, none too large."""
    if not (source / INDEX).is_file() and sum(tensor.size for tensor in tensors) < ONE_FILE:
        return {WEIGHTS: tensors}
    files: dict[str, list[_Tensor]] = {}
    for shard in dict.fromkeys(tensor.shard for tensor in tensors):
        parts: list[list[_Tensor]] = [[]]
        for tensor in (tensor for tensor in tensors if tensor.shard == shard):
            if parts[-1] and sum(other.size for other in parts[-1]) + tensor.size > _LARGEST_FILE:
                parts.append([])
            parts[-1].append(tensor)
        for number, part in enumerate(parts):
            files[f"model-{shard}{f'-{number + 1:05}' if number else ''}.safetensors"] = part
    return files if len(files) > 1 else {WEIGHTS: tensors}


def _write(
    source: Path, target: Path, tensors: list[_Tensor], config: dict[str, Any], record: dict[str, Any] | None
) -> None:
    """Write the new checkpoint directory `target`: its tensors a file at a time, and what else belongs to it."""
    target.mkdir(parents=True)
    files = _laid_out(source, tensors)
    for name, held in files.items():
        entries = [(tensor.name, tensor.shape, tensor.dtype) for tensor in held]
        write_weights(target / name, entries, (tensor.value() for tensor in held))
    if len(files) > 1:
        weight_map = {tensor.name: name for name, held in files.items() for tensor in held}
        total = sum(tensor.size for tensor in tensors)
        _write_json(target / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    _write_json(target / "config.json", config)
    if record is not None:
        _write_json(target / RECORD, record)
    _copy_companions(source, target)
    mend_files(target, complete(config))
    if is_apart(config):
        ship(target)
    sync(target / name for name in files)


def write_record(checkpoint: Path, record: dict[str, Any]) -> None:
    """Write COMPRESSION.json, which is no part of what names the checkpoint."""
    _write_json(checkpoint / RECORD, record)


def _copy_companions(source: Path, target: Path) -> None:
    """Copy what belongs to a checkpoint and is neither weights nor made anew; say what is left behind."""
    files = choose(source)
    made = {"config.json", RECORD, MODELING, SUMS, INDEX, *files.weights}
    say_what_is_left(source, files)
    lay_out(files.without(made), target)


def _stored_under_ties(anatomy: Anatomy, stored: dict[str, Shape]) -> set[str]:
    return {name for alias, name in anatomy.ties.items() if alias in stored}


def _write_json(path: Path, value: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
