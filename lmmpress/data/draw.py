"""Draws some of the rows of a split."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lmmpress.plan import Draw


def drawn(
    ids: NDArray[np.int64], limit: int, draw: Draw, seed: int, picture_of: Mapping[int, int], tasks: Sequence[str]
) -> NDArray[np.int64]:
    """`limit` of the rows `ids` [rows], in their order.

    `even` takes pictures evenly over the split, each with all its rows; `random` takes pictures in a seeded order, each
    with all its rows; `by_task` takes rows at random, of each task as large a share as it has in the split.
    `picture_of` gives the number of a row's first picture, if it has one; `tasks` [rows] are the rows' tasks.
    """
    if limit >= len(ids):
        return ids
    generator = np.random.Generator(np.random.PCG64(seed))
    if draw == "by_task":
        return ids[np.sort(_by_task(tasks, limit, generator))]
    groups: dict[object, list[int]] = {}
    for place, number in enumerate(ids.tolist()):
        groups.setdefault(picture_of.get(number, (place,)), []).append(place)
    members = list(groups.values())
    if draw == "even":
        count = -(-limit * len(members) // len(ids))
        chosen = [place for at in range(count) for place in members[at * len(members) // count]][:limit]
    else:
        order = generator.permutation(len(members)).tolist()
        chosen = sorted([place for at in order for place in members[at]][:limit])
    return ids[chosen]


def _by_task(tasks: Sequence[str], limit: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """The places of `limit` rows, of each task its share: rounded down, and one more for the largest remainders."""
    counts = Counter(tasks)
    exact = {task: limit * count / len(tasks) for task, count in counts.items()}
    quota = {task: int(share) for task, share in exact.items()}
    for task in sorted(exact, key=lambda task: (quota[task] - exact[task], task))[: limit - sum(quota.values())]:
        quota[task] += 1
    names = np.array(tasks)
    parts = [generator.permutation(np.flatnonzero(names == task))[: quota[task]] for task in sorted(counts)]
    found: NDArray[np.int64] = np.concatenate(parts)
    return found
