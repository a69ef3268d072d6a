"""Makes a row of a record's values: a question and its answer, LLaVA's or ShareGPT's conversation, OpenAI's messages.

The record is untrusted: every text is checked, and an error says where the record is.
"""

import base64
import binascii
import json
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from lmmpress.data.containers.container import Held, Record
from lmmpress.data.row import Row, Turn
from lmmpress.errors import UserError
from lmmpress.settings.reading import FIELDS, Reading, Text

LONGEST_TEXT = 1_000_000  # characters of a question, an answer, or all texts of a conversation
ONE_TASK = "default"
PLACE = "<image>"
"""The text that stands for a picture in the text of a row."""

_LONGEST_NAME = 200  # characters of a task or a split
_OLD = ("question", "answer", "task", "split")
_NEW = frozenset(FIELDS) - {*_OLD, "file_name"}
_MOST = 1000  # turns, right answers or pictures of a row
_ASKS = ("human", "user")
_SAYS = ("gpt", "assistant", "chatgpt", "bot", "model")
_DATA_URL = "data:image/"

Picture = str | Held


@dataclass(frozen=True)
class Read:
    """A row, the pictures that its names stand for, and its split, empty if nothing names one. `old` is what the digest
    of earlier versions takes of the row: the picture's path as the data spells it, question, answer and task. It is
    None if earlier versions had no such rows."""

    row: Row
    pictures: tuple[Picture, ...]
    split: str
    old: list[str | None] | None


def row_of(record: Record, reading: Reading) -> Read:
    """The row of a record. Raises UserError, which begins with the record's place, for what is missing or wrong."""
    if record.fault:
        raise UserError(f"{record.place}: {record.fault}")
    values = _Values(record, reading)
    spoken = _spoken(values)
    system, others = values.text("system"), tuple[str, ...]()
    if spoken is None:
        question, answers = values.needed("question"), _answers(values)
        turns: tuple[Turn, ...] = (Turn(question, answers[0] if answers else ""),)
        others, in_messages = tuple(answers[1:]), list[Picture]()
    else:
        turns, in_messages = spoken.turns, spoken.pictures
        system = spoken.system or system
    chat = spoken is not None
    pictures = [*_pictures(values), *in_messages]
    names = tuple(one.name if isinstance(one, Held) else _file(values, one) for one in pictures)
    if chat:
        turns = _without_leading_places(values, turns, len(names))
    row = Row(
        question=turns[-1].question,
        answer=turns[-1].answer,
        task=values.text("task", _LONGEST_NAME) or ONE_TASK,
        pictures=names,
        before=turns[:-1],
        system=system,
        others=others,
        chat=chat,
        place=record.place,
        line=record.line,
    )
    split = values.text("split", _LONGEST_NAME) or record.split or ""
    old: list[str | None] | None = None
    if values.is_as_before and len(row.answers) == 1 and not row.system:
        old = [*(one for one in pictures if isinstance(one, str)), row.question, row.answer, row.task]
        old = old if len(pictures) else [None, *old]
    located = tuple(one if isinstance(one, Held) else name for one, name in zip(pictures, names, strict=True))
    return Read(row, located, split, old)


class _Values:
    """A record's values under our names for the columns."""

    def __init__(self, record: Record, reading: Reading) -> None:
        self._record, self._reading = record, reading
        self.place = record.place
        self._values: dict[str, object] = record.values
        if reading.columns:
            renamed = {
                ours: theirs.text if isinstance(theirs, Text) else record.values.get(theirs)
                for ours, theirs in reading.columns.items()
            }
            self._values = {**record.values, **renamed}

    def __getitem__(self, name: str) -> object:
        return self._values.get(name)

    def fault(self, words: str) -> UserError:
        return UserError(f"{self.place}: {words}")

    def shown(self, name: str) -> str:
        """Our name of a column, with the data's own if that is another."""
        theirs = self._reading.columns.get(name, name)
        return name if theirs == name or isinstance(theirs, Text) else f"{name} (column {theirs!r})"

    @property
    def is_as_before(self) -> bool:
        """Whether earlier versions could read the record: one question, one answer, one file, with task and split."""
        return (
            not self._reading.columns
            and not _NEW.intersection(self._values)
            and all(isinstance(self._values.get(name), str) for name in _OLD)
        )

    def held(self) -> list[Picture]:
        """The pictures that the container itself has found, in whatever columns."""
        values = (one if isinstance(one, list) else [one] for one in self._record.values.values())
        return [one for several in values for one in several if isinstance(one, Held)]

    @property
    def unlabelled(self) -> bool:
        return self._reading.unlabelled

    def text(self, name: str, longest: int = LONGEST_TEXT) -> str:
        """A text, empty if the record has none."""
        value = self[name]
        return "" if value is None else self.checked(value, self.shown(name), longest)

    def needed(self, name: str) -> str:
        """A text that a record must have."""
        if self[name] is None:
            raise self.fault(
                f"{self.shown(name)} is missing; a row has question and answer, or conversations, or messages; "
                "`columns` says where they are called otherwise"
            )
        return self.text(name)

    def checked(self, value: object, name: str, longest: int = LONGEST_TEXT) -> str:
        """A text that is not empty, not too long, and made of characters."""
        if not isinstance(value, str):
            raise self.fault(f"{name} is {_short(value)}, which is no text; write it as text, in quotes")
        if not value.strip():
            raise self.fault(f"{name} is empty; fill it in, or leave the row out")
        if len(value) > longest:
            raise self.fault(f"{name} has {len(value):,} characters, more than {longest:,}; shorten it")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self.fault(
                f"{name} holds {value[error.start]!r}, half of a surrogate pair, which is no character; write the "
                "pair, or the character itself"
            ) from None
        return value


def _answers(values: _Values) -> list[str]:
    """The right answers of a record; several ones are a list in `answer` or `answers`."""
    name = "answers" if values["answer"] is None and values["answers"] is not None else "answer"
    value = values[name]
    if value is None and values.unlabelled:
        return []
    if not isinstance(value, list):
        return [values.needed(name)]
    if not value or len(value) > _MOST:
        raise values.fault(f"{values.shown(name)} has {len(value):,} answers; a row has 1 to {_MOST:,}")
    texts = [one.get("answer") if isinstance(one, dict) else one for one in value]
    return [values.checked(text, f"{values.shown(name)}, entry {number}") for number, text in enumerate(texts, start=1)]


@dataclass(frozen=True)
class _Spoken:
    """A conversation: its system text, its turns, and the pictures that its messages hold."""

    system: str
    turns: tuple[Turn, ...]
    pictures: list[Picture]


def _spoken(values: _Values) -> _Spoken | None:
    """A record's conversation; None if it has none."""
    for name, who, what in (("messages", "role", "content"), ("conversations", "from", "value")):
        value = values[name]
        if value is None:
            continue
        if not isinstance(value, list) or not 0 < len(value) <= 2 * _MOST:
            raise values.fault(f"{values.shown(name)} is {_short(value)}; it is a list of 1 to {2 * _MOST:,} messages")
        pictures: list[Picture] = []
        messages = []
        for number, message in enumerate(value, start=1):
            where = f"{values.shown(name)}, message {number}"
            if not isinstance(message, dict):
                raise values.fault(f"{where} is {_short(message)}; it is an object with {who!r} and {what!r}")
            # some data sets call the list `conversations` and write role and content in it, or the other way round
            speaker = message.get(who, message.get("role", message.get("from")))
            content = message.get(what, message.get("content", message.get("value")))
            messages.append((speaker, _content(values, content, where, pictures), where))
        return _conversation(values, messages, pictures)
    return None


def _conversation(values: _Values, messages: Sequence[tuple[object, str, str]], pictures: list[Picture]) -> _Spoken:
    """Messages, each with its speaker, text and place, as turns."""
    system = messages[0][1] if messages[0][0] == "system" else ""
    turns: list[Turn] = []
    question = None
    for speaker, text, where in messages[bool(system) :]:
        if question is None:
            if speaker not in _ASKS:
                raise values.fault(f"{where} is by {_short(speaker)}; here a question by {_ASKS[0]!r} or 'user' is due")
            question = text
        elif speaker in _SAYS:
            turns.append(Turn(question, text))
            question = None
        else:
            raise values.fault(f"{where} is by {_short(speaker)}; here an answer by {_SAYS[0]!r} or 'assistant' is due")
    if question is not None:
        if not values.unlabelled:
            raise values.fault("the last question has no answer; add it, or leave the question out")
        turns.append(Turn(question, ""))
    if not turns:
        raise values.fault("the conversation has no question")
    if sum(len(text) for _, text, _ in messages) > LONGEST_TEXT:
        raise values.fault(f"the conversation has more than {LONGEST_TEXT:,} characters; shorten it")
    return _Spoken(system, tuple(turns), pictures)


def _content(values: _Values, content: object, where: str, pictures: list[Picture]) -> str:
    """The text of a message; pictures among its parts are added to `pictures`, and `<image>` stands in their place."""
    if not isinstance(content, list):
        return values.checked(content, where)
    texts = []
    for number, part in enumerate(content, start=1):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "input_text"):
            texts.append(values.checked(part.get("text"), f"{where}, part {number}"))
        elif kind in ("image", "image_url", "input_image"):
            texts.append(f"{PLACE}\n" if number < len(content) else PLACE)
            source = next(
                (part[key] for key in ("image_url", "image", "url", "path") if part.get(key) is not None), None
            )
            if isinstance(source, dict):
                source = source.get("url") or ""
            if source is not None:
                pictures.append(_source(values, source, f"{where}, part {number}"))
        else:
            raise values.fault(f"{where}, part {number} is {_short(kind)}; parts are of type text, image or image_url")
    return values.checked("".join(texts), where)


def _source(values: _Values, source: object, where: str) -> Picture:
    if isinstance(source, str) and source.startswith(_DATA_URL):
        head, _, data = source.partition(",")
        try:
            if not head.endswith(";base64"):
                raise ValueError
            raw = base64.b64decode(data, validate=True)
        except (ValueError, binascii.Error):
            raise values.fault(
                f"{where}: the picture in the text is not base64; write data:image/png;base64,..."
            ) from None
        return Held(f"{values.place}, {where}", raw=raw)
    if isinstance(source, str | Held):
        return source
    raise values.fault(f"{where}: the picture is {_short(source)}; it is the path of a file, or data:image/...;base64,")


def _pictures(values: _Values) -> list[Picture]:
    """The pictures in a record's columns."""
    found: list[Picture] = []
    for name in ("file_name", "file_names", "image", "images"):
        value = values[name]
        if value is None:
            continue
        if found:
            raise values.fault(f"the row has pictures in two columns, also in {values.shown(name)}; keep one of them")
        given = value if isinstance(value, list) and name != "file_name" else [value]
        if len(given) > _MOST:
            raise values.fault(f"{values.shown(name)} has {len(given):,} pictures, more than {_MOST:,}")
        for one in given:
            if not isinstance(one, str | Held) or not one or (isinstance(one, str) and "\0" in one):
                what = "no text" if name == "file_name" else _short(one)
                raise values.fault(
                    f"{values.shown(name)} is {what}; it is the path of one image, and a row without image has none"
                )
            found.append(_source(values, one, name) if isinstance(one, str) else one)
    return found or values.held()


def _file(values: _Values, name: str) -> str:
    """The normalised path of a picture's file: `./a.png` becomes `a.png`."""
    if "://" in name:
        raise values.fault(f"image {name!r} is an address; fetch it into the data set and name the file")
    if "\0" in name:
        raise values.fault(f"image {name!r} holds the character 0, which no path has; name the file")
    return posixpath.normpath(values.checked(name, "file_name"))


def _without_leading_places(values: _Values, turns: tuple[Turn, ...], pictures: int) -> tuple[Turn, ...]:
    """The turns without `<image>` where that says what is true anyway: that the pictures come first.

    So a question is the same whether its form writes these places or not.
    """
    first, places = turns[0].question, 0
    while first.startswith(PLACE):
        first, places = first[len(PLACE) :].lstrip("\n"), places + 1
    if (
        not places
        or places != pictures
        or any(PLACE in question for question in (first, *(t.question for t in turns[1:])))
    ):
        return turns
    if not first.strip():
        raise values.fault("the first question is nothing but pictures; add what is asked about them")
    return (Turn(first, turns[0].answer), *turns[1:])


def _short(value: object) -> str:
    full = json.dumps(value, default=str, ensure_ascii=True)
    return full if len(full) <= 40 else f"{full[:37]}..."
