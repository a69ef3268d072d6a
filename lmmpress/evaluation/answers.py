"""Generates a checkpoint's answers with plain greedy generation, to the rows of a data set or to any questions."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

import torch
from accelerate import Accelerator
from PIL import Image

from lmmpress.data import Row, Split, open_picture, read_split
from lmmpress.data.pictures import as_rgb
from lmmpress.data.rows import thumbnail
from lmmpress.errors import UserError
from lmmpress.evaluation.generate import generate, lengths, questions
from lmmpress.evaluation.greedy import check_greedy, end_tokens
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.examples import Examples, encode
from lmmpress.lmm.processor import decoded, load_processor, tokenizer_of
from lmmpress.printing.sheet import Cell, Grid, Part, Picture, Shown
from lmmpress.printing.visible import shortened
from lmmpress.progress import track

_SHOWN = 20  # number of answers that a notebook shows
_SIDE = 96  # largest side in pixels of a picture in a notebook

Question = str | tuple[Path | str | Image.Image, str]
"""A prompt for a text-only model, or a picture (a file, or an image in memory) and a prompt about it."""


@dataclass(frozen=True)
class Answer:
    """A model's answer to a question.

    `tokens` are the tokens of the text, including the end token. `ended` is false if the answer was cut off. `right`
    says whether the answer equals the data set's answer `wanted`; both are None for a question without a known answer.
    """

    question: str
    text: str
    tokens: tuple[int, ...] = field(repr=False)
    ended: bool
    file_name: str | None = None
    wanted: str | None = None
    right: bool | None = None
    picture: Picture | None = field(default=None, repr=False)


@dataclass(frozen=True, repr=False)
class Answers(Shown, Sequence[Answer]):
    """Answers, in the order of the questions."""

    answers: tuple[Answer, ...]

    def __len__(self) -> int:
        return len(self.answers)

    @overload
    def __getitem__(self, place: int) -> Answer: ...
    @overload
    def __getitem__(self, place: slice) -> "Answers": ...
    def __getitem__(self, place: int | slice) -> "Answer | Answers":
        return Answers(self.answers[place]) if isinstance(place, slice) else self.answers[place]

    @property
    def accuracy(self) -> float | None:
        """The share of right answers; None if no right answers are known."""
        judged = [answer.right for answer in self.answers if answer.right is not None]
        return sum(judged) / len(judged) if judged else None

    def __repr__(self) -> str:
        few = "; ".join(f"{shortened(one.question, 30)}: {shortened(one.text, 30)}" for one in self.answers[:2])
        more = f"; and {len(self) - 2} more" if len(self) > 2 else ""
        right = "" if self.accuracy is None else f", accuracy {self.accuracy:.4f}"
        return f"<{len(self)} answers{right}: {few}{more}>"

    def shown(self) -> tuple[Part, ...]:
        """The first answers as a table, and how many are right."""
        rows: list[tuple[Cell, ...]] = []
        for one in self.answers[:_SHOWN]:
            text = one.text if one.ended else f"{one.text} ..."
            rows.append((one.picture or "", one.question, text, one.wanted or ""))
        parts: list[Part] = [Grid(("picture", "question", "answer", "wanted"), tuple(rows))]
        if len(self) > _SHOWN:
            parts.append(f"and {len(self) - _SHOWN} more")
        if self.accuracy is not None:
            parts.append(f"accuracy {self.accuracy:.4f}")
        return tuple(parts)


def answer_split(checkpoint: Path, data: Path, split: str, batch_size: int, longest: int, rows: int | None) -> Answers:
    """A checkpoint's answers to the rows of a split, to at most `rows` of them.

    Raises UserError for rows that do not fit the model.
    """
    return _answers(checkpoint, read_split(data, split, rows), batch_size, longest, judged=True)


def answer_questions(checkpoint: Path, asked: Iterable[Question], batch_size: int, longest: int) -> Answers:
    """A checkpoint's answers to questions. Either all questions have a picture or none has.

    Raises UserError for pictures that cannot be read, and for questions that do not fit the model.
    """
    with _as_split(asked) as split:
        return _answers(checkpoint, split, batch_size, longest, judged=False) if split.rows else Answers(())


@contextmanager
def _as_split(given: Iterable[Question]) -> Iterator[Split]:
    """The questions as rows of a split; their pictures are in a temporary folder while the block runs."""
    with tempfile.TemporaryDirectory(prefix="lmmpress-") as folder:
        rows = []
        for number, one in enumerate(given, start=1):
            picture, prompt = (None, one) if isinstance(one, str) else one
            name = None
            if picture is not None:
                image = as_rgb(picture) if isinstance(picture, Image.Image) else open_picture(Path(picture))
                name = f"{number}.png"
                image.save(Path(folder) / name)
            rows.append(Row(prompt, "", "", (name,) if name else (), line=number))
        if len({not row.pictures for row in rows}) > 1:
            raise UserError("some questions have a picture and some have none; ask them in two calls")
        yield _QuestionSplit("questions", Path(folder), tuple(rows), "")


class _QuestionSplit(Split):
    """A split of questions that come from no file."""

    def place(self, row: Row) -> str:
        return f"question {row.line}, {row.question[:40]!r}"


@torch.no_grad()
def _answers(checkpoint: Path, split: Split, batch_size: int, longest: int, judged: bool) -> Answers:
    anatomy = read_checkpoint(checkpoint)
    processor = load_processor(checkpoint)
    tokenizer, ends = tokenizer_of(processor), end_tokens(checkpoint)
    check_greedy(checkpoint, tokenizer)
    examples = encode(split, processor, anatomy.config, answered=judged)
    model = load_model(checkpoint).to(Accelerator().device)
    parts = [range(at, min(at + batch_size, len(examples.rows))) for at in range(0, len(examples.rows), batch_size)]
    answers: list[Answer] = []
    for chosen in track(parts, f"answer {split.name}"):
        tokens = generate(model, questions(model, examples, chosen), longest)
        for number, row, length in zip(chosen, tokens.tolist(), lengths(tokens, ends), strict=True):
            text = decoded(tokenizer, row[:length])
            answers.append(_answer(examples, number, text, tuple(row[:length]), ends, judged))
    return Answers(tuple(answers))


def _answer(
    examples: Examples, number: int, text: str, tokens: tuple[int, ...], ends: frozenset[int], judged: bool
) -> Answer:
    row = examples.split.rows[number]
    ended = bool(tokens) and tokens[-1] in ends
    answer = Answer(row.question, text, tokens, ended, picture=_small(examples.split, row, number))
    if not judged:
        return answer
    right = ended and list(tokens[:-1]) == examples.rows[number].answer[:-1]
    return replace(answer, file_name=row.picture, wanted=row.answer, right=right)


def _small(split: Split, row: Row, number: int) -> Picture | None:
    """A thumbnail of a row's picture for a notebook; None for rows that the notebook does not show."""
    if row.picture is None or number >= _SHOWN:
        return None
    return Picture(thumbnail(split, row.picture, _SIDE))
