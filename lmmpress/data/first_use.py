"""Numbers things in the order in which they are first used."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def by_first_use(keys: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The number of each key [keys], counted from 0 in the order of first use, and the place of each number's first
    use [numbers].

    Keys are numbers from 0 on; the memory that this takes grows with the largest one.
    """
    if not len(keys):
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    places = np.arange(len(keys), dtype=np.int32)
    of_key = np.empty(int(keys.max()) + 1, np.int32)
    of_key[keys[::-1]] = places[::-1]  # the last assignment stays: the first place
    firsts = np.flatnonzero(of_key[keys] == places)
    of_key[keys[firsts]] = np.arange(len(firsts), dtype=np.int32)
    return of_key[keys], firsts
