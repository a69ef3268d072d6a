"""How much of a run one task of a pipeline makes."""

from enum import StrEnum


class Granularity(StrEnum):
    """A task makes a part of a `step`, or a whole `stage`."""

    step = "step"
    stage = "stage"
