"""Converts the rows of a split to token ids, as the checkpoint's own processor does.

The texts of rows are encoded many at a time, and each picture once, however many rows are about it. So text and
pictures do not go through the processor in one call; a picture takes as many tokens in every prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import Any

from PIL import Image

from lmmpress.data import Row, Split
from lmmpress.errors import UserError
from lmmpress.lmm.compatibility import fitted, image_token, puts_image_in_front
from lmmpress.lmm.pixels import naming_row
from lmmpress.lmm.processor import tokenizer_of
from lmmpress.lmm.prompts import Dialogue, Prompts
from lmmpress.plan import Template, Turns

Ids = list[int]

ROWS_AT_ONCE = 1000


class MisfitError(UserError):
    """A row does not fit the model: `lmmpress data --checkpoint` calls it a fault of the row."""


@dataclass(frozen=True)
class Encoded:
    """A row's token ids: its prompt, its answer with the end token, and where the answers of earlier turns stand in the
    prompt, first and behind the last token, if the loss is on them too."""

    prompt: Ids
    answer: Ids
    earlier: tuple[tuple[int, int], ...] = ()


class Encoder:
    """Encodes rows and pictures of one split. Use it in a with block."""

    def __init__(
        self,
        split: Split,
        processor: Any,
        config: dict[str, Any],
        answered: bool = True,
        turns: Turns = "last",
        template: Template = "auto",
    ) -> None:
        self.split = split
        self.processor = fitted(processor, config)
        self._answered, self._every_turn = answered, turns == "all"
        self._tokenizer = tokenizer_of(processor)
        if self._tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no end token, so no answer ever ends; set eos_token")
        text = config.get("text_config", config)
        self.decoder_start = text["decoder_start_token_id"] if text.get("is_encoder_decoder") else None
        if self._every_turn and self.decoder_start is not None:
            raise UserError(
                "turns is all, but the model's decoder reads only the last answer of a row (it is an encoder-decoder); "
                "set turns: last"
            )
        self._longest = text.get("max_position_embeddings")
        self._prompts = Prompts(split, processor, turns, template, whole=self.decoder_start is not None)

    def __enter__(self) -> "Encoder":
        return self

    def __exit__(self, *_: object) -> None:
        self._prompts.__exit__()

    @property
    def pad(self) -> int:
        """The token id that pads batches."""
        pad = self._tokenizer.pad_token_id
        return int(self._tokenizer.eos_token_id if pad is None else pad)

    def rows(self, rows: Sequence[Row]) -> list[Encoded]:
        """The token ids of some rows. MisfitError for a row that does not fit the model, or is longer than it takes."""
        try:
            return self._encoded(rows)
        except UserError as error:
            raise MisfitError(*error.lines) from error

    def _encoded(self, rows: Sequence[Row]) -> list[Encoded]:
        dialogues = [self._prompts.of(row, self._has_answer(row)) for row in rows]
        firsts = self._tokens([(dialogue.asked[0], dialogue.special) for dialogue in dialogues], rows)
        encoded = []
        answers = self._tokens([(dialogue.answers[-1], False) for dialogue in dialogues], rows)
        for row, dialogue, first, answer in zip(rows, dialogues, firsts, answers, strict=True):
            prompt, earlier = self._with_turns(row, dialogue, first)
            if dialogue.rendered and self.decoder_start is None:
                answer = self._continued(row, dialogue, -1, prompt, answer)
            if self._has_answer(row) and not answer:
                raise self._nothing(row, f"answer {row.answer[:40]!r}")
            ended = [*answer, self._tokenizer.eos_token_id] if self._has_answer(row) else []
            prompt, earlier = self._with_pictures(row, prompt, earlier)
            self._check_length(row, len(prompt), len(ended))
            encoded.append(Encoded(prompt, ended, earlier if self._every_turn else ()))
        return encoded

    def _has_answer(self, row: Row) -> bool:
        return self._answered and bool(row.answer)

    def _with_turns(self, row: Row, dialogue: Dialogue, first: Ids) -> tuple[Ids, tuple[tuple[int, int], ...]]:
        """The ids of a whole prompt, and where the earlier answers stand in it.

        A prompt goes on from the one of the turn before, with that turn's answer. Where the tokenizer joins tokens at
        the seams of the whole text, the text behind the answer is encoded alone.
        """
        if not first:
            raise self._nothing(row, "question")
        ids, earlier = first, list[tuple[int, int]]()
        for turn, (answer_text, asked) in enumerate(zip(dialogue.answers, dialogue.asked[1:], strict=False)):
            answer, behind = self._tokens([(answer_text, False), (asked, False)], [row, row])
            if dialogue.rendered:
                answer = self._continued(row, dialogue, turn, ids, answer)
            if not answer or not behind:
                raise self._nothing(row, f"answer {answer_text[:40]!r}" if not answer else "question")
            earlier.append((len(ids), len(ids) + len(answer)))
            known = ids + answer
            (joined,) = self._tokens([(dialogue.prompt(turn + 1), dialogue.special)], [row])
            ids = joined if joined[: len(known)] == known and len(joined) > len(known) else known + behind
        return ids, tuple(earlier)

    def _continued(self, row: Row, dialogue: Dialogue, turn: int, prompt: Ids, alone: Ids) -> Ids:
        """The ids of a turn's answer behind its prompt; `alone` are those without it, which count where the tokenizer
        joins tokens at the seam."""
        (joined,) = self._tokens([(dialogue.prompt(turn) + dialogue.answers[turn], dialogue.special)], [row])
        return joined[len(prompt) :] if joined[: len(prompt)] == prompt else alone

    def _with_pictures(
        self, row: Row, prompt: Ids, earlier: tuple[tuple[int, int], ...]
    ) -> tuple[Ids, tuple[tuple[int, int], ...]]:
        """A prompt with all tokens of its pictures, instead of one for each place, or in front of it."""
        if not row.pictures:
            return prompt, earlier
        token, count = self._image
        if puts_image_in_front(self.processor):
            return [token] * count + prompt, tuple((start + count, end + count) for start, end in earlier)
        if prompt.count(token) != len(row.pictures):
            raise UserError(
                f"{self.split.place(row)}: the tokenizer finds {prompt.count(token)} places of images in the prompt, "
                f"but the row has {len(row.pictures)}; put a space or a line break around {image_token(self.processor)}"
            )
        moved = [sum(count if id == token else 1 for id in prompt[:at]) for at in chain.from_iterable(earlier)]
        whole = list(chain.from_iterable([id] * (count if id == token else 1) for id in prompt))
        return whole, tuple(zip(moved[::2], moved[1::2], strict=True))

    @cached_property
    def _image(self) -> tuple[int, int]:
        """The token that stands for a picture, and how many of them a picture takes."""
        token = image_token(self.processor)
        blank = Image.new("RGB", (32, 24))
        row = next(row for row in self.split.rows if row.pictures)
        with naming_row(self.split, lambda: row):
            text = "a" if puts_image_in_front(self.processor) else token
            ids = self.processor(images=[blank], text=[text], return_tensors=None)["input_ids"][0]
        number = int(self._tokenizer.convert_tokens_to_ids(token))
        return number, list(ids).count(number)

    def unknown(self, encoded: Encoded) -> bool:
        """Whether the tokenizer has no token for some characters of an answer; the end token does not count."""
        return self._tokenizer.unk_token_id in encoded.answer[:-1]

    def _tokens(self, texts: Sequence[tuple[str, bool]], rows: Sequence[Row]) -> list[Ids]:
        """Token ids of texts, each with or without the tokenizer's special tokens; a place of an image is one token.
        A text that rows have in common is encoded once."""
        ids: dict[tuple[str, bool], Ids] = {}
        for special in (True, False):
            several = list(dict.fromkeys(text for text, its in texts if its is special and text))
            if several:
                with naming_row(self.split, partial(rows.__getitem__, texts.index((several[0], special)))):
                    found = self._tokenizer(several, add_special_tokens=special, return_attention_mask=False)
                for text, one in zip(several, found["input_ids"], strict=True):
                    ids[text, special] = [int(token) for token in one]
        return [ids.get(text, []) for text in texts]

    def _nothing(self, row: Row, what: str) -> UserError:
        return UserError(f"{self.split.place(row)}: the tokenizer makes nothing of the {what}; change it")

    def _check_length(self, row: Row, prompt: int, answer: int) -> None:
        if self._longest is not None and prompt + answer > self._longest:
            raise UserError(
                f"{self.split.place(row)}: the answer {row.answer[:40]!r} does not fit: prompt and answer are "
                f"{prompt + answer} tokens, the model takes {self._longest}; shorten the row, or leave it out"
            )
