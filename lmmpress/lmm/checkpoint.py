"""Checkpoints: Hugging Face directories that are read, cut, loaded, saved and named by their content."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy, Shape
from lmmpress.lmm.cut import Cut, TensorCut
from lmmpress.lmm.families.registry import family_of
from lmmpress.lmm.read_anatomy import anatomy_of, read_config, resized
from lmmpress.lmm.weights import INDEX, WeightFile, stored_shapes, weight_files, write_weights

RECORD = "COMPRESSION.json"
_BLOCK = 1 << 22


def digest_checkpoint(checkpoint: Path) -> str:
    """sha256 that names a checkpoint: over the names and the sha256 of its files."""
    return digest_manifest(manifest_of(checkpoint))


def manifest_of(checkpoint: Path) -> dict[str, str]:
    """The sha256 of every file of a checkpoint directory, by its name."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return {path.relative_to(checkpoint).as_posix(): _sha256(path) for path in files}


def digest_manifest(manifest: dict[str, str]) -> str:
    """The name of the checkpoint that consists of these files."""
    return hashlib.sha256("".join(f"{name}\0{sha}\n" for name, sha in sorted(manifest.items())).encode()).hexdigest()


def read_checkpoint(checkpoint: Path) -> Anatomy:
    """The anatomy of a checkpoint whose weights are exactly what its config says.

    Raises UserError for an unknown family, missing or unknown tensors, and shapes that contradict the config.
    """
    config = read_config(checkpoint)
    if config.get("quantization_config"):
        raise UserError(f"{checkpoint} is quantised; save its dequantised weights (model.dequantize()) and use those")
    anatomy = anatomy_of(config)
    stored = stored_shapes(checkpoint)
    known = anatomy.shapes.keys() | anatomy.ties.keys()
    if missing := sorted(anatomy.shapes.keys() - stored.keys() - _stored_under_ties(anatomy, stored)):
        raise UserError(f"{checkpoint} lacks tensors that its config asks for: {_some(missing)}")
    if unknown := sorted(stored.keys() - known):
        raise UserError(f"{checkpoint} holds tensors that its config does not know: {_some(unknown)}")
    wrong = [name for name, shape in stored.items() if name in anatomy.shapes and anatomy.shapes[name] != shape]
    if wrong:
        name = sorted(wrong)[0]
        raise UserError(
            f"{checkpoint}: weights contradict config.json: {name} is {list(stored[name])}, "
            f"the config says {list(anatomy.shapes[name])}; one of the two is from another model"
        )
    return anatomy


def load_model(checkpoint: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """The model in evaluation mode, computing in `dtype`, loaded by transformers from the local files alone."""
    import transformers

    transformers.utils.logging.disable_progress_bar()  # one line per step is ours to print
    auto = getattr(transformers, family_of(read_config(checkpoint)).auto_class)
    model: torch.nn.Module = auto.from_pretrained(checkpoint, dtype=dtype, local_files_only=True)
    return model.eval()


def apply_cut(source: Path, cut: Cut, target: Path, record: dict[str, Any] | None = None) -> None:
    """Write the checkpoint that a cut leaves of `source` into the new directory `target`, one tensor at a time.

    Everything that is not weights or config (tokenizer, processor, ...) is copied along, and `record` is written as
    COMPRESSION.json. Raises UserError where the family's config cannot express the cut.
    """
    anatomy = read_checkpoint(source)
    config = resized(anatomy.config, cut, anatomy)
    target.mkdir(parents=True)
    plan = TensorCut(anatomy, cut)
    index: dict[str, str] = {}
    total = 0
    for path in weight_files(source):
        file = WeightFile(path)
        kept = [(name, new) for name in file if (new := plan.name(anatomy.ties.get(name, name))) is not None]
        kept = [(name, new if name not in anatomy.ties else name) for name, new in kept]
        entries: list[tuple[str, Shape, torch.dtype]] = [
            (new, plan.shape(anatomy.ties.get(name, name), file.shape(name)), file.dtype(name)) for name, new in kept
        ]
        stream = (plan.values(anatomy.ties.get(name, name), file.tensor(name)) for name, _ in kept)
        write_weights(target / path.name, entries, stream)
        index |= {new: path.name for _, new in kept}
        total += (target / path.name).stat().st_size
    if (source / INDEX).is_file():
        _write_json(target / INDEX, {"metadata": {"total_size": total}, "weight_map": index})
    _write_json(target / "config.json", config)
    if record is not None:
        _write_json(target / RECORD, record)
    _copy_companions(source, target)


def save_trained(model: torch.nn.Module, source: Path, target: Path, record: dict[str, Any]) -> None:
    """Write a model trained from the checkpoint `source` as the new directory `target`, in the dtypes of `source`."""
    target.mkdir(parents=True)
    state = model.state_dict()
    for path in weight_files(source):
        file = WeightFile(path)
        entries = [(name, file.shape(name), file.dtype(name)) for name in file]

        def stream(entries: list[tuple[str, Shape, torch.dtype]] = entries) -> Iterator[torch.Tensor]:
            for name, _, dtype in entries:
                yield state[name].detach().to("cpu", dtype)

        write_weights(target / path.name, entries, stream())
    for name in (INDEX, "config.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    _write_json(target / RECORD, record)
    _copy_companions(source, target)


def read_record(checkpoint: Path) -> dict[str, Any] | None:
    """What COMPRESSION.json says of where the checkpoint comes from; None for an original."""
    path = checkpoint / RECORD
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return record


def _copy_companions(source: Path, target: Path) -> None:
    weights = {path.name for path in weight_files(source)} | {INDEX, "config.json", RECORD}
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
