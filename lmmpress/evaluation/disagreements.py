"""The rows of a test split on which the original and the compressed model disagree, for people to look at."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmmpress.data.facts import SplitFacts, Values
from lmmpress.data.pictures import picture_of, small_png
from lmmpress.errors import UserError
from lmmpress.evaluation.comparison import Differing
from lmmpress.metrics.scale import Scale
from lmmpress.result import Record

SIDE = 160
"""The largest side of a picture in pixels."""
LOST, GAINED = 24, 12
"""At most so many rows are shown that the original is better at, and that the compressed model is better at."""


class Disagreement(Record):
    """A row that is worth more to one of the models, by the metric of its task: `worth` to the original, which is A of
    `row`, and to the compressed model, which is B. `picture` is a small PNG in base64."""

    row: Differing
    metric: str
    worth: tuple[float, float]
    picture: str | None = None


class Disagreements(Record):
    """The rows of a test split that are worth more to the original (`lost` of `rows`) and to the compressed model
    (`gained`); of these the worst are `shown`."""

    rows: int
    lost: int
    gained: int
    shown: tuple[Disagreement, ...]

    def drawn_anew(self) -> "Disagreements":
        """The same with pictures that are new pixels, and in each row as bytes: a stranger may have written these. A
        picture that cannot be read is left out."""
        return self.model_copy(update={"shown": tuple(map(_drawn_anew, self.shown))})


def _drawn_anew(one: Disagreement) -> Disagreement:
    try:
        png = None if one.picture is None else small_png(picture_of(base64.b64decode(one.picture, validate=True)), SIDE)
    except (UserError, ValueError):
        png = None
    kept = None if png is None else base64.b64encode(png).decode("ascii")
    return one.model_copy(update={"row": one.row.model_copy(update={"picture": png}), "picture": kept})


@dataclass(frozen=True)
class Worst:
    """How many rows are worth more to the original (`lost`) and to the compressed model (`gained`), and the numbers of
    the worst of both."""

    lost: int
    gained: int
    lost_rows: list[int]
    gained_rows: list[int]


def worst_rows(before: Values, after: Values, facts: SplitFacts, scales: Mapping[str, Scale]) -> Worst:
    """The rows on which two models disagree, by what each is worth to them [rows]: those with the largest difference
    first, and of equal ones the first of the split."""
    lost = before.astype(np.float64) - after.astype(np.float64)
    for task, rows in facts.rows_by_task().items():
        if scales[task].better == "lower":
            lost[rows] *= -1
    order = np.argsort(-np.abs(lost), kind="stable")
    worse, better = order[lost[order] > 0].tolist(), order[lost[order] < 0].tolist()
    return Worst(len(worse), len(better), worse[:LOST], better[:GAINED])
