"""Folders that `save_to_disk` of Hugging Face `datasets` writes: of one Dataset, or with a folder for each split.

`datasets` itself is not needed.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmmpress.data.containers.container import Container, Record
from lmmpress.data.containers.file_names import check_inside, is_shown, natural
from lmmpress.errors import UserError
from lmmpress.files.strict_json import read_mapping
from lmmpress.host.extras import needs

_DICT, _STATE = "dataset_dict.json", "state.json"
_SPLIT = re.compile(r"\w+(\.\w+)*")  # a name, and no slice such as train[:50%]
_LONGEST = 64 << 20  # bytes of each of these
_INDICES = ("_indices_data_files", "_indices_files")  # of releases before 1.2, which did not write rows in their order


def _files(names: Sequence[str]) -> list[str]:
    states = [name for name in names if posixpath.basename(name) == _STATE and name.count("/") <= 1 and is_shown(name)]
    if _STATE in states:
        states = [_STATE]
    folders = {posixpath.dirname(name) for name in states}
    arrows = [name for name in names if name.endswith(".arrow") and posixpath.dirname(name) in folders]
    if not arrows:
        return []
    splits = [_DICT] if _DICT in names and states != [_STATE] else []
    return splits + sorted([*states, *arrows], key=natural)


def _records(folder: Path, names: Sequence[str]) -> Iterator[Record]:
    needs("pyarrow", str(folder))
    return _all_rows(folder, names)


def _all_rows(folder: Path, names: Sequence[str]) -> Iterator[Record]:
    from lmmpress.data.containers.saved_rows import chosen_rows, rows

    for around, split in _splits(folder, names):
        state = _read(folder, posixpath.join(around, _STATE))
        place = folder / around / _STATE
        data = _named(state, "_data_files", around, place)
        indices = next((_named(state, key, around, place) for key in _INDICES if state.get(key)), [])
        if split is None and isinstance(state.get("_split"), str) and _SPLIT.fullmatch(state["_split"]):
            split = state["_split"]
        yield from chosen_rows(folder, data, indices, split) if indices else rows(folder, data, split)


def _splits(folder: Path, names: Sequence[str]) -> list[tuple[str, str | None]]:
    """The folders of the splits, with their names; one Dataset's own folder has none here."""
    if _DICT not in names:
        folders = [posixpath.dirname(name) for name in names if posixpath.basename(name) == _STATE]
        return [(around, around or None) for around in folders]
    splits = _read(folder, _DICT).get("splits")
    if not isinstance(splits, list) or not all(_is_plain(split) for split in splits):
        raise UserError(f"{folder / _DICT}: splits is no list of names; write the folder again by save_to_disk")
    if len(set(splits)) < len(splits):
        raise UserError(f"{folder / _DICT} names a split twice; write the folder again by save_to_disk")
    for split in splits:
        if f"{split}/{_STATE}" not in names:
            raise UserError(f"{folder / _DICT} names the split {split!r}, but {split}/{_STATE} is missing")
    return [(split, split) for split in splits]


def _named(state: dict[str, Any], key: str, around: str, place: Path) -> list[str]:
    """The files that a state lists, by their paths inside the data set."""
    listed = state.get(key)
    found = (
        [one.get("filename") if isinstance(one, dict) else None for one in listed] if isinstance(listed, list) else []
    )
    names = [name for name in found if isinstance(name, str) and _is_plain(name)]
    if not names or len(names) < len(found):
        raise UserError(f"{place}: {key} is no list of files; write the folder again by save_to_disk")
    if len(set(names)) < len(names):
        raise UserError(f"{place}: {key} names a file twice; write the folder again by save_to_disk")
    return [posixpath.join(around, name) for name in names]


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and bool(name) and not set(name) & set("/\0") and name not in (".", "..")


def _read(folder: Path, name: str) -> dict[str, Any]:
    check_inside(folder, name)
    return read_mapping(folder / name, _LONGEST)


DATASETS = Container("a folder of `datasets`", _files, _records)
