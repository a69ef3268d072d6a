"""The texts of a row as a model reads them: its turns joined, with the places of its pictures, or rendered by the
checkpoint's chat template.

Raises UserError for a row that does not fit the model.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from lmmpress.data import Row, Split
from lmmpress.data.row import Turn
from lmmpress.errors import UserError
from lmmpress.lmm.chat_template import Conversation, Message, Renderer, template_of
from lmmpress.lmm.compatibility import image_token, puts_image_in_front, sees
from lmmpress.lmm.processor import tokenizer_of
from lmmpress.lmm.row_reading import is_rendered
from lmmpress.plan import Template, Turns


@dataclass(frozen=True)
class Dialogue:
    """A row as texts that alternate: `asked` [turns] is what stands in front of each answer, `answers` [turns] are the
    answers. The last answer is empty where it is unknown. If the loss does not need the earlier answers one by one,
    they are part of the only text in `asked`.

    `rendered` says whether a template made the texts, and `special` whether the tokenizer adds its special tokens.
    """

    asked: tuple[str, ...]
    answers: tuple[str, ...]
    rendered: bool = False
    special: bool = True

    def prompt(self, turn: int = -1) -> str:
        """All that stands in front of the answer of a turn."""
        turn %= len(self.asked)
        earlier = zip(self.asked[:turn], self.answers[:turn], strict=True)
        return "".join(asked + answer for asked, answer in earlier) + self.asked[turn]


class Prompts:
    """Makes the texts of the rows of a split. Use it in a with block."""

    def __init__(
        self, split: Split, processor: Any, turns: Turns = "last", template: Template = "auto", whole: bool = False
    ) -> None:
        """With `whole` a prompt is one text, as an encoder needs it."""
        self._split, self._processor, self._turns, self._setting = split, processor, turns, template
        self._whole = whole
        self._token = image_token(processor)
        self._takes_places = sees(processor) and not puts_image_in_front(processor)
        found = None if template == "never" else template_of(processor)
        if template == "always" and found is None:
            raise UserError(
                f"{tokenizer_of(processor).name_or_path}: template is always, but the checkpoint has no chat template; "
                "set template: auto, or add its chat_template.jinja"
            )
        self._in_parts = found is not None and found[1] and self._takes_places
        names = tokenizer_of(processor).special_tokens_map
        self._renderer = Renderer(found[0], names) if found else None

    def __enter__(self) -> "Prompts":
        return self

    def __exit__(self, *_: object) -> None:
        if self._renderer:
            self._renderer.__exit__()

    def of(self, row: Row, answered: bool = True) -> Dialogue:
        """The texts of a row; without `answered` the last answer is unknown."""
        placed = self._placed(row)
        turns = [*placed.before, Turn(placed.question, placed.answer if answered else "")]
        if self._renderer and is_rendered(row, self._setting):
            return self._rendered(row, placed.system, turns, answered, self._renderer)
        first = f"{placed.system}\n" if placed.system else ""
        asked = (first + turns[0].question, *(f"\n{turn.question}" for turn in turns[1:]))
        dialogue = Dialogue(asked, tuple(turn.answer for turn in turns))
        return Dialogue((dialogue.prompt(),), dialogue.answers[-1:]) if self._whole else dialogue

    def _rendered(self, row: Row, system: str, turns: list[Turn], answered: bool, renderer: Renderer) -> Dialogue:
        messages = [self._message("system", system)] if system else []
        conversations: list[Conversation] = []
        for number, turn in enumerate(turns, start=1):
            messages = [*messages, self._message("user", turn.question)]
            if number == len(turns) or self._turns == "all":
                conversations.append((messages, True))
            messages = [*messages, self._message("assistant", turn.answer)]
        if answered:
            conversations.append((messages, False))
        try:
            texts = renderer.render(conversations)
        except UserError as error:
            raise self._misfit(row, f"cannot render the row: {error}") from None
        prompts = texts[:-1] if answered else texts
        self._check_rendered_places(row, prompts[-1])
        asked, answers = [prompts[0]], list[str]()
        for before, after, turn in zip(texts, texts[1:], turns[-len(prompts) :], strict=False):
            answers.append(self._answer_between(row, before, after, turn.answer))
            asked.append(after[len(before) + len(answers[-1]) :])
        bos = tokenizer_of(self._processor).bos_token
        special = self._processor is not tokenizer_of(self._processor) and not (bos and prompts[-1].startswith(bos))
        if not answered:
            answers.append("")
        return Dialogue(tuple(asked[: len(prompts)]), tuple(answers), rendered=True, special=special)

    def _answer_between(self, row: Row, before: str, after: str, answer: str) -> str:
        """The answer as it stands in the text `after`, which goes on where the prompt `before` ends."""
        if after.startswith(before):
            rest = after[len(before) :]
            space = rest[: len(rest) - len(rest.lstrip())]
            for text in (answer, space + answer.strip()):
                if rest.startswith(text):
                    return text
        raise self._misfit(row, f"does not write the answer {answer[:40]!r} as it is, right behind the prompt for it")

    def _message(self, role: str, text: str) -> Message:
        return {"role": role, "content": list(self._parts(text)) if self._in_parts else text}

    def _parts(self, text: str) -> Iterator[dict[str, str]]:
        """Texts and images in their order; a template writes the line breaks between them itself."""
        for number, part in enumerate(text.split(self._token)):
            if number:
                yield {"type": "image"}
            if part := part.strip("\n") if self._token in text else part:
                yield {"type": "text", "text": part}

    def _check_rendered_places(self, row: Row, prompt: str) -> None:
        if not sees(self._processor):
            return
        places, wanted = prompt.count(self._token), len(row.pictures) if self._takes_places else 0
        if places != wanted:
            raise self._misfit(row, f"writes {self._token} {places} times and not {wanted} times")

    def _misfit(self, row: Row, what: str) -> UserError:
        return UserError(
            f"{self._split.place(row)}: the checkpoint's chat template {what}; change the row, or set template: never"
        )

    def _placed(self, row: Row) -> Row:
        """The row with a place in its texts for each picture, if the model takes places."""
        if not sees(self._processor):
            if row.pictures:
                raise self._fault(
                    row,
                    f"the row has an image, {row.picture!r}, but the model takes text alone; leave out file_name, or "
                    "use a model with a vision tower",
                )
            return row
        token, count = self._token, len(row.pictures)
        if token in row.answer or any(token in turn.answer for turn in row.before):
            raise self._fault(row, f"the answer holds {token}, which stands for a picture; take it out")
        places = sum(text.count(token) for text in (row.system, *row.asked))
        where = "question holds" if row.asked == (row.question,) and not row.system else "row's texts hold"
        if not self._takes_places:
            if not count:
                raise self._fault(row, "the row has no image, but BLIP-2 needs one; give it a file_name")
            if count > 1:
                raise self._fault(row, f"the row has {count} images, but BLIP-2 takes one; leave one")
            if places:
                raise self._fault(
                    row, f"the {where} {token}, but BLIP-2's processor puts the image in front itself; take it out"
                )
            return row
        if places and not count:
            raise self._fault(row, f"the {where} {token}, but the row has no image; add its file_name")
        if places and places != count:
            has = "one image" if count == 1 else f"{count} images"
            raise self._fault(
                row,
                f"the {where} {token} {places} times, but the row has {has}; write it once for each image, or leave it "
                "out",
            )
        if places or not count:
            return row
        front = f"{token}\n" * count
        if not row.before:
            return replace(row, question=front + row.question)
        first = replace(row.before[0], question=front + row.before[0].question)
        return replace(row, before=(first, *row.before[1:]))

    def _fault(self, row: Row, what: str) -> UserError:
        return UserError(f"{self._split.place(row)}: {what}")
