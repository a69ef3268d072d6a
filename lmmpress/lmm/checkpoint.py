"""Reads, cuts, loads and saves checkpoints, which are Hugging Face directories."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, KeysView
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
from lmmpress.files.own_types import MODELING, has_own_type
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.compatibility import correct_files
from lmmpress.lmm.compression_record import read_record
from lmmpress.lmm.families.registry import family_of
from lmmpress.lmm.read_anatomy import anatomy_of, complete, config_after, first_line, read_config
from lmmpress.lmm.remote_code import make_known, ship
from lmmpress.lmm.tensor_cut import TensorCut, compose
from lmmpress.lmm.weights import WeightFile, stored_shapes, sync, weight_files, write_weights

ONE_FILE = 64 << 20  # bytes; below this a checkpoint of one weight file keeps one file
_LARGEST_FILE = 5 << 30
_COMPUTED = (".position_ids", ".rotary_emb.inv_freq")  # old checkpoints store these buffers, models compute them


def read_checkpoint(checkpoint: Path) -> Anatomy:
    """The anatomy of a checkpoint, after checking that its weights match its config exactly.

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
            f"{checkpoint} holds tensors that its config does not know: {_some(unknown)}; nothing is dropped silently: "
            "remove them, or use the config that belongs to them"
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
    """The name of a stored tensor in the model: the same in checkpoints of our own model types."""
    return stored if has_own_type(config) else family_of(config).in_model(stored)


def stored_in_model(checkpoint: Path, config: dict[str, Any]) -> Shapes:
    """The shapes of all stored tensors by their names in the model, without the buffers that models compute."""
    stored = stored_shapes(checkpoint)
    return {name_in_model(config, name): shape for name, shape in stored.items() if not name.endswith(_COMPUTED)}


def load_model(checkpoint: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """Load the model with transformers, from local files only, in evaluation mode and computing in `dtype`."""
    import transformers

    config = read_config(checkpoint)
    make_known(config)
    transformers.utils.logging.disable_progress_bar()  # lmmpress prints its own progress
    auto = getattr(transformers, family_of(config).auto_class)
    with shown(checkpoint) as folder:
        try:
            model: torch.nn.Module = auto.from_pretrained(
                folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        except Exception as error:  # any exception of transformers here is caused by the untrusted files
            reason = first_line(error).replace(str(folder), str(checkpoint))
            raise UserError(f"{checkpoint}: transformers cannot load it: {reason}") from None
    return model.eval()


def digest_of_tensors(checkpoint: Path, prefixes: tuple[str, ...]) -> str:
    """A sha256 over the names and values of the tensors whose names in the model begin so."""
    values, total = StoredValues(checkpoint), hashlib.sha256()
    for name in sorted(values.names):
        if name.startswith(prefixes):
            tensor = values.tensor(name).contiguous()
            total.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
            total.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def apply_cuts(
    source: Path, anatomy: Anatomy, cuts: list[Cut], target: Path, record: dict[str, Any] | None = None
) -> None:
    """Apply cuts to the checkpoint `source` and write the result into the new directory `target`, tensor by tensor.

    `anatomy` is that of `source`. The indices of each cut refer to the model after the previous cuts. Removed blocks
    and rows are not read. The other files of the checkpoint (tokenizer, processor, ...) are copied, and `record` is
    written as COMPRESSION.json.
    Raises UserError if a cut was made for another model or no config can express the result.
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
                    renamed if has_own_type(config) else _as_stored(stored, name, renamed),
                    _shard_of(anatomy, owner),
                    plan.shape(owner, file.shape(stored)),
                    file.dtype(stored),
                    partial(lambda file, stored, owner: plan.values(owner, file.tensor(stored)), file, stored, owner),
                )

    _write(source, target, list(kept()), config, record)


def _as_stored(stored: str, before: str, after: str) -> str:
    """A stored tensor's new name when its name in the model changes from `before` to `after`.

    Stored names and names in the model differ only in their beginnings.
    """
    pairs = zip(reversed(stored), reversed(before), strict=False)
    tail = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return stored[: len(stored) - tail] + after[len(before) - tail :]


def save_trained(model: torch.nn.Module, source: Path, anatomy: Anatomy, target: Path, record: dict[str, Any]) -> None:
    """Save a model that was trained from the checkpoint `source`, in the dtypes of `source`, to the new directory
    `target`. `anatomy` is that of `source`."""
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


def add_difference(
    source: Path, anatomy: Anatomy, plus: Path, minus: Path, target: Path, record: dict[str, Any]
) -> None:
    """Write `source` + (`plus` - `minus`) into the new directory `target`, tensor by tensor, in the dtypes of `source`.

    All three are checkpoints of the same shape; `anatomy` is that of `source`, whose other files are copied. Each sum
    is computed in float64 and rounded once, so equal weights give back `plus`. Raises UserError where one of them lacks
    a tensor, or has another shape.
    """
    config = read_config(source)
    others = [StoredValues(folder) for folder in (plus, minus)]

    def summed() -> Iterator[_Tensor]:
        for file in map(WeightFile, weight_files(source)):
            for stored in file:
                name = name_in_model(config, stored)
                if stored.endswith(_COMPUTED):
                    continue
                shape, dtype = file.shape(stored), file.dtype(stored)
                for other in others:
                    other.check(name, shape)

                def value(file: WeightFile = file, stored: str = stored, name: str = name) -> torch.Tensor:
                    mine, (more, less) = file.tensor(stored), (other.tensor(name).double() for other in others)
                    return (mine.double() + (more - less)).to(mine.dtype)

                yield _Tensor(stored, _shard_of(anatomy, anatomy.ties.get(name, name)), shape, dtype, value)

    _write(source, target, list(summed()), config, record)


class StoredValues:
    """The tensors of a checkpoint by their names in the model."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint, config = checkpoint, read_config(checkpoint)
        files = [WeightFile(path) for path in weight_files(checkpoint)]
        self._held = {name_in_model(config, stored): (file, stored) for file in files for stored in file}

    def check(self, name: str, shape: Shape) -> None:
        """Raise UserError unless there is a tensor of this name and shape."""
        file, stored = self._held.get(name, (None, ""))
        if file is None or file.shape(stored) != shape:
            raise UserError(f"{self._checkpoint} has no {name} of the shape {list(shape)}: it is of another model")

    @property
    def names(self) -> KeysView[str]:
        return self._held.keys()

    def tensor(self, name: str) -> torch.Tensor:
        file, stored = self._held[name]
        return file.tensor(stored)


@dataclass(frozen=True)
class _Tensor:
    """One tensor to write: its stored name, its shard, and a function that computes its value."""

    name: str
    shard: str
    shape: Shape
    dtype: torch.dtype
    value: Callable[[], torch.Tensor]

    @property
    def size(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def _shard_of(anatomy: Anatomy, tensor: str) -> str:
    """The shard of a tensor. Each image tower has its own shard: the file of an unchanged tower keeps its bytes."""
    for name in anatomy.image_towers:
        if anatomy.towers[name].owns(tensor):
            return name
    return "image" if tensor.startswith(anatomy.image_side) else "language"


def _divided(source: Path, tensors: list[_Tensor]) -> dict[str, list[_Tensor]]:
    """Divide tensors into files: one file if `source` has one and the weights are small; otherwise files by shard, none
    larger than the limit."""
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
    """Write the new checkpoint directory `target`: the tensors file by file, then all other files."""
    target.mkdir(parents=True)
    files = _divided(source, tensors)
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
    correct_files(target, complete(config))
    if has_own_type(config):
        ship(target)
    sync(target / name for name in files)


def write_record(checkpoint: Path, record: dict[str, Any]) -> None:
    """Write COMPRESSION.json, which is not part of the checkpoint's digest."""
    _write_json(checkpoint / RECORD, record)


def _copy_companions(source: Path, target: Path) -> None:
    """Copy the files of a checkpoint that this module does not write itself; print which files are left out."""
    files = choose(source)
    written = {"config.json", RECORD, MODELING, SUMS, INDEX, *files.weights}
    say_what_is_left(source, files)
    lay_out(files.without(written), target)


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
