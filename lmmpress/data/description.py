"""What a data set is, as `lmmpress data` shows it."""

from dataclasses import asdict, dataclass
from typing import Any

from lmmpress.data.survey import Fault
from lmmpress.printing.sheet import Grid, Part, Shown

MOST_SHOWN = 200  # faults that are printed; all are in the JSON
_LONGEST = 40  # characters of an answer that is shown


@dataclass(frozen=True)
class Spread:
    """How long texts are."""

    median: int
    p99: int
    longest: int


@dataclass(frozen=True)
class Tokens:
    """How long the rows are in a checkpoint's tokens. `most` is how many the model takes for prompt and answer
    together, None if its config does not say; `too_long` is the number of rows with more."""

    checkpoint: str
    prompts: Spread
    answers: Spread | None
    most: int | None
    too_long: int


@dataclass(frozen=True)
class Pictures:
    """The pictures of the rows: how many there are, and how many are left if those with the same bytes count once.
    `formats` are counts by format. Sizes are width and height of the upright pictures with the fewest, the median and
    the most pixels."""

    count: int
    contents: int
    formats: dict[str, int]
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


@dataclass(frozen=True)
class Shared:
    """What two splits have in common: how many pictures or rows, and for some of them the names in both."""

    splits: tuple[str, str]
    count: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Labels:
    """The answers of a task in a split: rows with an answer, different answers, and the most frequent one with
    its share of the rows."""

    task: str
    split: str
    rows: int
    answers: int
    most_frequent: str
    share: float


@dataclass(frozen=True)
class Fixed:
    """The clean copy that was written: its folder, rows and pictures."""

    folder: str
    rows: int
    pictures: int


@dataclass(frozen=True, repr=False)
class Description(Shown):
    """What was found in a data set. All numbers are of the rows without a fault.

    `form` is the form that was read, from `files` files; `unread` are the names of other forms that have files there.
    `rows` are counts by split and task; `divided` of them have no split in the data, and were divided. `unlabelled`
    have no answer. Lengths are in characters, `questions` and `answers` of all rows, `by_task` of the answers of each
    task. `repeated_pictures` and `repeated_rows` count what a split has more than once.
    """

    data: str
    form: str
    files: int
    unread: tuple[str, ...]
    rows: dict[str, dict[str, int]]
    divided: int
    unlabelled: int
    questions: Spread | None
    answers: Spread | None
    by_task: dict[str, Spread]
    tokens: Tokens | None
    pictures: Pictures | None
    shared_pictures: tuple[Shared, ...]
    shared_rows: tuple[Shared, ...]
    repeated_pictures: dict[str, int]
    repeated_rows: dict[str, int]
    labels: tuple[Labels, ...]
    warnings: tuple[str, ...]
    faults: tuple[Fault, ...]
    fixed: Fixed | None = None

    @property
    def count(self) -> int:
        """The number of rows without a fault."""
        return sum(sum(by_task.values()) for by_task in self.rows.values())

    def as_dict(self) -> dict[str, Any]:
        """The output of `lmmpress data --json`."""
        return {**asdict(self), "counts": {"rows": self.count, "faults": len(self.faults)}}

    def __repr__(self) -> str:
        return f"<{self.form} {self.data}: {self.count:,} rows, {len(self.faults):,} faults>"

    def shown(self) -> tuple[Part, ...]:
        """The form, the rows, their lengths, pictures and labels, then warnings and faults."""
        files = "1 file" if self.files == 1 else f"{self.files:,} files"
        parts: list[Part] = [f"{self.data}: {self.form}, {self.count:,} rows from {files}", self._rows()]
        if self.divided:
            parts.append(f"the data gives {self.divided:,} of these rows no split; they were divided by shares")
        parts += [self._lengths(), self._labels(), *self._pictures()]
        parts += [f"warning: {warning}" for warning in self.warnings]
        if self.faults:
            parts += ["1 fault:" if len(self.faults) == 1 else f"{len(self.faults):,} faults:", self._faults()]
            if len(self.faults) > MOST_SHOWN:
                parts.append(f"and {len(self.faults) - MOST_SHOWN:,} more; --json lists all")
        else:
            parts.append("no faults")
        if self.fixed:
            parts.append(f"{self.fixed.folder}: {self.fixed.rows:,} rows and {self.fixed.pictures:,} images written")
        return tuple(parts)

    def _rows(self) -> Grid:
        tasks = sorted({task for by_task in self.rows.values() for task in by_task})
        rows = [
            (split, *(f"{by_task.get(task, 0):,}" for task in tasks), f"{sum(by_task.values()):,}")
            for split, by_task in self.rows.items()
        ]
        return Grid(("split", *tasks, "all"), tuple(rows))

    def _lengths(self) -> Grid:
        tokens, by_task = self.tokens, self.by_task if len(self.by_task) > 1 else {}
        lengths = {
            "questions, characters": self.questions,
            "answers, characters": self.answers,
            **{f"answers of {task}, characters": spread for task, spread in by_task.items()},
            "prompts, tokens": tokens.prompts if tokens else None,
            "answers, tokens": tokens.answers if tokens else None,
        }
        rows = [
            (what, f"{spread.median:,}", f"{spread.p99:,}", f"{spread.longest:,}")
            for what, spread in lengths.items()
            if spread
        ]
        return Grid(("length", "median", "99th percentile", "longest"), tuple(rows))

    def _labels(self) -> Grid:
        rows = [
            (one.task, one.split, f"{one.answers:,}", _short(one.most_frequent), f"{one.share:.1%}")
            for one in self.labels
        ]
        return Grid(("task", "split", "answers", "most frequent", "share"), tuple(rows))

    def _pictures(self) -> list[Part]:
        found = self.pictures
        if not found:
            return ["no images"]
        formats = ", ".join(f"{count:,} {name}" for name, count in found.formats.items())
        sides = [f"{width} x {height}" for width, height in (found.smallest, found.median, found.largest)]
        return [
            f"{found.count:,} images ({formats}), {found.contents:,} with different bytes; from {sides[0]} over "
            f"{sides[1]} (median) to {sides[2]} pixels"
        ]

    def _faults(self) -> Grid:
        return Grid(("row", "fault"), tuple((one.place, one.why) for one in self.faults[:MOST_SHOWN]))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
