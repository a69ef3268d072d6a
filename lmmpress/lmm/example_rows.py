"""The token ids of a split's rows, in files: a few of them at a time are in memory, however many rows there are."""

import tempfile
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from lmmpress.lmm.tensor_rows import TensorRows, naming, open_rows, save_rows

Numbers = NDArray[np.int64]

_IDS = torch.int32


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and answer, including the end token. `images` are the indices of its images in the split, in
    the order of their places.

    `earlier` are the answers of earlier turns in the prompt that the loss is on too: each one's first token, and the
    token behind its last one, where the model should have ended.
    """

    prompt: list[int]
    answer: list[int]
    images: tuple[int, ...]
    earlier: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)

    @property
    def targets(self) -> list[int]:
        """The tokens that the answer positions predict, turn by turn; every answer ends with the end token."""
        ended = (token for start, end in self.earlier for token in (*self.prompt[start:end], self.answer[-1]))
        return [*ended, *self.answer]

    @property
    def positions(self) -> int:
        """The number of answer positions."""
        return sum(end - start + 1 for start, end in self.earlier) + len(self.answer)


class ExampleRows(Sequence[Example]):
    """The examples of a split. `prompts` and `answers` are the lengths [rows] of each row's token ids, `positions`
    [rows] the numbers of its answer positions."""

    def __init__(self, prompts: "_Ids", answers: "_Ids", images: "_Lists", earlier: "_Lists") -> None:
        self._prompts, self._answers, self._images, self._earlier = prompts, answers, images, earlier
        self.prompts, self.answers = np.diff(prompts.ends), np.diff(answers.ends)

    def __len__(self) -> int:
        return len(self.prompts)

    @overload
    def __getitem__(self, row: int) -> Example: ...
    @overload
    def __getitem__(self, row: slice) -> "ExampleRows": ...
    def __getitem__(self, row: int | slice) -> "Example | ExampleRows":
        if isinstance(row, slice):
            return pack(self[number] for number in range(*row.indices(len(self))))
        row = range(len(self))[row]
        places = self._earlier.of(row)
        earlier = tuple(zip(places[::2], places[1::2], strict=True))
        return Example(self._prompts.of(row), self._answers.of(row), tuple(self._images.of(row)), earlier)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExampleRows) and len(self) == len(other) and all(map(Example.__eq__, self, other))

    @property
    def lengths(self) -> Numbers:
        """The numbers of token ids of prompt and answer, [rows]."""
        return self.prompts + self.answers

    @cached_property
    def positions(self) -> Numbers:
        pairs = self._earlier.values.reshape(-1, 2).astype(np.int64)
        summed = np.concatenate(([0], np.cumsum(pairs[:, 1] - pairs[:, 0] + 1)))
        of_turns: Numbers = np.diff(summed[self._earlier.ends // 2])
        return of_turns + self.answers

    @property
    def has_earlier(self) -> bool:
        """Whether answers of earlier turns count in any row."""
        return len(self._earlier.values) > 0

    @property
    def image_counts(self) -> Numbers:
        """The number of images of each row, [rows]."""
        return np.diff(self._images.ends)

    def images(self, row: int) -> list[int]:
        """The images of a row, in the order of their places."""
        return self._images.of(row)

    def save(self, path: Path, others: dict[str, int]) -> None:
        """Write the examples, and some numbers by name, to a safetensors file."""
        counts = self.image_counts
        tensors: dict[str, TensorRows | torch.Tensor] = {
            "prompts": self._prompts.tokens,
            "prompt_lengths": _tensor(self.prompts),
            "answers": self._answers.tokens,
            "answer_lengths": _tensor(self.answers),
            **{name: torch.tensor([number], dtype=_IDS) for name, number in others.items()},
        }
        if (counts < 2).all():  # as earlier versions wrote it
            images = np.full(len(self), -1)
            images[counts == 1] = self._images.values
            tensors["images"] = _tensor(images)
        else:
            tensors |= {"images": _tensor(self._images.values), "image_counts": _tensor(counts)}
        if self.has_earlier:
            tensors |= {
                "earlier": _tensor(self._earlier.values),
                "earlier_counts": _tensor(np.diff(self._earlier.ends)),
            }
        save_rows(path, tensors)


def pack(examples: Iterable[Example]) -> ExampleRows:
    """The same examples, with their token ids in files."""
    prompts, answers, images, earlier = _NewIds(), _NewIds(), _NewLists(), _NewLists()
    for example in examples:
        prompts.add(example.prompt)
        answers.add(example.answer)
        images.add(example.images)
        earlier.add([place for span in example.earlier for place in span])
    return ExampleRows(prompts.done(), answers.done(), images.done(), earlier.done())


def open_examples(path: Path) -> tuple[ExampleRows, dict[str, int]]:
    """The examples that `ExampleRows.save` or an earlier version wrote to a file, and the numbers beside them.

    Raises ValueError or KeyError for a file of something else.
    """
    found = open_rows(path)
    if any(len(one.shape) != 1 or one.dtype != _IDS for one in found.values()):
        raise ValueError("not all of its tensors are lists of numbers")
    prompts = _Ids(found.pop("prompts"), _ends(_read(found.pop("prompt_lengths"))))
    answers = _Ids(found.pop("answers"), _ends(_read(found.pop("answer_lengths"))))
    images = _read(found.pop("images"))
    counts = _read(found.pop("image_counts")) if "image_counts" in found else (images >= 0).astype(np.int32)
    every = _Lists(images[images >= 0], _ends(counts))
    none = np.zeros(0, np.int32)
    places = _read(found.pop("earlier")) if "earlier" in found else none
    turns = _read(found.pop("earlier_counts")) if "earlier_counts" in found else np.zeros(len(counts), np.int32)
    lists = _Lists(places, _ends(turns))
    held = [(len(one.tokens), one.ends) for one in (prompts, answers)]
    held += [(len(one.values), one.ends) for one in (every, lists)]
    if len({len(ends) for _, ends in held}) > 1 or any(count != ends[-1] for count, ends in held):
        raise ValueError("its lengths are not those of its rows")
    return ExampleRows(prompts, answers, every, lists), {name: int(one.part(0, 1)[0]) for name, one in found.items()}


@dataclass(frozen=True)
class _Ids:
    """Token ids of rows in a file: those of a row are between two of `ends` [rows + 1]."""

    tokens: TensorRows
    ends: Numbers

    def of(self, row: int) -> list[int]:
        found: list[int] = self.tokens.part(int(self.ends[row]), int(self.ends[row + 1])).tolist()
        return found


@dataclass(frozen=True)
class _Lists:
    """A few numbers for each row, in memory: those of a row are between two of `ends` [rows + 1]."""

    values: NDArray[np.int32]
    ends: Numbers

    def of(self, row: int) -> list[int]:
        found: list[int] = self.values[self.ends[row] : self.ends[row + 1]].tolist()
        return found


class _NewIds:
    """Token ids that are being written."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as its rows are
        self._lengths = array("i")

    def add(self, ids: Sequence[int]) -> None:
        with naming(self._file.name):
            self._file.write(array("i", ids).tobytes())
        self._lengths.append(len(ids))

    def done(self) -> _Ids:
        with naming(self._file.name):
            self._file.flush()
        ends = _ends(np.array(self._lengths, np.int32))
        return _Ids(TensorRows(self._file, 0, (int(ends[-1]),), _IDS), ends)


class _NewLists:
    """Numbers of rows that are being gathered."""

    def __init__(self) -> None:
        self._values, self._lengths = array("i"), array("i")

    def add(self, values: Sequence[int]) -> None:
        self._values.extend(values)
        self._lengths.append(len(values))

    def done(self) -> _Lists:
        return _Lists(np.array(self._values, np.int32), _ends(np.array(self._lengths, np.int32)))


def _ends(lengths: NDArray[np.int32]) -> Numbers:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))


def _read(tensor: TensorRows) -> NDArray[np.int32]:
    found: NDArray[np.int32] = tensor.part(0, len(tensor)).numpy()
    return found


def _tensor(values: NDArray[np.int32] | Numbers) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int32))
