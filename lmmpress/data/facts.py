"""What the gate and the report need to know of a split's rows, without their texts and images."""

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lmmpress.data.rows import Split

Marks = np.ndarray[Any, np.dtype[np.bool_]]
"""Booleans [rows]: which rows a model answers right."""

Values = np.ndarray[Any, np.dtype[np.bool_ | np.float64]]
"""What each row is worth by its metric [rows]: booleans if each is right or wrong, else numbers."""


class SplitFacts(BaseModel):
    """A split: its name in the data, the number of its rows, and the digest of their texts and images.

    `tasks` are the names of the tasks in alphabetical order; `task_of_row` [rows] are indices into them, empty if there
    is one task. `image_of_row` [rows] is the index of each row's image, empty if each row has its own; a row without an
    image has an index of its own. Rows that share any image, directly or through other rows, have one index.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str
    rows: int = Field(gt=0)
    digest: str
    tasks: tuple[str, ...]
    task_of_row: tuple[int, ...] = ()
    image_of_row: tuple[int, ...] = ()

    def owners(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """The index of each row's image, [rows]."""
        return np.array(self.image_of_row or range(self.rows), dtype=np.int64)

    def rows_by_task(self) -> dict[str, Marks]:
        """Which rows are of each task, booleans [rows], in alphabetical order."""
        numbers = np.array(self.task_of_row or [0] * self.rows)
        return {task: numbers == number for number, task in enumerate(self.tasks)}

    def by_task(self, values: Values) -> dict[str, float]:
        """Accuracy of each task, the mean over its rows, in alphabetical order."""
        return {task: float(values[rows].mean()) for task, rows in self.rows_by_task().items()}


def facts_of(split: Split) -> SplitFacts:
    """The facts of a split."""
    tasks = sorted({row.task for row in split.rows})
    of_task = {task: number for number, task in enumerate(tasks)}
    images = _owners(split)
    return SplitFacts(
        split=split.name,
        rows=len(split.rows),
        digest=split.digest,
        tasks=tuple(tasks),
        task_of_row=tuple(of_task[row.task] for row in split.rows) if len(tasks) > 1 else (),
        image_of_row=() if images == tuple(range(len(images))) else images,
    )


def _owners(split: Split) -> tuple[int, ...]:
    """For each row the index of its image; of the first image, where rows with several share some. A row without an
    image has its own index."""
    images = split.images
    first = list(range(len(images.names)))  # of the images that are joined to each one, or nearer to it

    def root(image: int) -> int:
        while first[image] != image:
            first[image] = image = first[first[image]]
        return image

    ends = np.cumsum(images.counts)
    for begin, end in zip((ends - images.counts).tolist(), ends.tolist(), strict=True):
        roots = [root(image) for image in images.numbers[begin:end].tolist()]
        for image in roots:
            first[image] = min(roots)
    return tuple(
        root(int(images.numbers[end - count])) if count else len(first) + number
        for number, (count, end) in enumerate(zip(images.counts.tolist(), ends.tolist(), strict=True))
    )
