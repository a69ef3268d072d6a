"""Draws some of the rows of a split."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmpress.data.first_use import by_first_use
from lmmpress.settings.distillation import Draw

Numbers = NDArray[np.integer[Any]]


def drawn(
    ids: NDArray[np.int64], limit: int, draw: Draw, seed: int, pictures: Numbers, tasks: Numbers
) -> NDArray[np.int64]:
    """`limit` of the rows `ids` [rows].

    `even` takes pictures evenly over the split, each with all its rows; `random` takes pictures in a seeded order, each
    with all its rows; `by_task` takes rows at random, of each task as large a share as it has in the split.
    `pictures` [rows] are the numbers of the rows' first pictures, -1 for none; `tasks` [rows] those of their tasks, in
    the order of the tasks' names.
    """
    if limit >= len(ids):
        return ids
    generator = np.random.Generator(np.random.PCG64(seed))
    if draw == "by_task":
        return ids[np.sort(_by_task(tasks, limit, generator))]
    if (pictures < 0).any():  # a row without a picture is a group of its own
        pictures = np.where(pictures < 0, int(pictures.max()) + 1 + np.arange(len(ids)), pictures)
    groups, firsts = by_first_use(pictures)
    members = np.argsort(groups, kind="stable")  # the places of the first group's rows, then those of the second one's
    if draw == "even":
        count = -(-limit * len(firsts) // len(ids))
        chosen = _rows_of(np.arange(count) * len(firsts) // count, groups, members, limit)
    else:
        chosen = np.sort(_rows_of(generator.permutation(len(firsts)), groups, members, limit))
    return ids[chosen]


def _rows_of(wanted: Numbers, groups: Numbers, members: Numbers, limit: int) -> Numbers:
    """The places of the first `limit` rows of the wanted groups, group by group."""
    sizes = np.bincount(groups)
    begins = np.cumsum(sizes) - sizes
    wanted = wanted[:limit]  # each has a row at least
    ends = np.cumsum(sizes[wanted])
    shifts = np.repeat(begins[wanted] - (ends - sizes[wanted]), sizes[wanted])
    found: Numbers = members[(np.arange(len(shifts)) + shifts)[:limit]]
    return found


def _by_task(tasks: Numbers, limit: int, generator: np.random.Generator) -> Numbers:
    """The places of `limit` rows, of each task its share: rounded down, and one more for the largest remainders."""
    counts = {task: count for task, count in enumerate(np.bincount(tasks).tolist()) if count}
    exact = {task: limit * count / len(tasks) for task, count in counts.items()}
    quota = {task: int(share) for task, share in exact.items()}
    for task in sorted(exact, key=lambda task: (quota[task] - exact[task], task))[: limit - sum(quota.values())]:
        quota[task] += 1
    parts = [generator.permutation(np.flatnonzero(tasks == task))[: quota[task]] for task in counts]
    return np.concatenate(parts)
