"""A row of a data set, whatever form it was read from."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Turn:
    """A question and the answer that was given to it, earlier in a conversation."""

    question: str
    answer: str


@dataclass(frozen=True)
class Row:
    """A question and its right answer, about some pictures or none.

    `question` is what is asked last: the full prompt, or the last turn of a conversation, whose earlier turns are in
    `before` and whose system text is `system`. `answer` is the answer to learn; it is empty where the rows have no
    labels. `others` are further answers that are right. `pictures` are the names of the row's pictures in their order:
    the places `<image>` in the texts stand for them; without such places they come in front of the first question.
    `chat` is true if the row was written as messages, so that a checkpoint's chat template may be applied to it.

    `place` says where the row was read, for messages; `line` is its number there.
    """

    question: str
    answer: str
    task: str
    pictures: tuple[str, ...] = ()
    before: tuple[Turn, ...] = ()
    system: str = ""
    others: tuple[str, ...] = ()
    chat: bool = field(default=False, compare=False)
    place: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    @property
    def picture(self) -> str | None:
        """The name of the first picture."""
        return self.pictures[0] if self.pictures else None

    @property
    def answers(self) -> tuple[str, ...]:
        """All right answers; the first one is the one to learn. Empty where the rows have no labels."""
        return (self.answer, *self.others) if self.answer else self.others

    @property
    def asked(self) -> tuple[str, ...]:
        """The questions of all turns, in their order."""
        return (*(turn.question for turn in self.before), self.question)
