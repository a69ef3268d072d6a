"""Measures how long rows are in a checkpoint's tokens, and finds those that do not fit the model."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmmpress.data import Row, Split
from lmmpress.data.describe import spread
from lmmpress.data.description import Tokens
from lmmpress.data.rows import Rows
from lmmpress.data.survey import Survey
from lmmpress.errors import UserError
from lmmpress.lmm.encoder import Encoder
from lmmpress.lmm.processor import load_processor
from lmmpress.lmm.read_anatomy import complete, read_config
from lmmpress.lmm.row_reading import ReadBy
from lmmpress.progress import track

_AT_ONCE = 1000
_LIMIT = "max_position_embeddings"


def measure_rows(survey: Survey, checkpoint: Path, name: str, how: ReadBy) -> Tokens | None:
    """Count the tokens of the good rows of a survey; it refuses those that do not fit the checkpoint called `name`,
    which reads them as `how` says. None if no row fits it."""
    config = complete(read_config(checkpoint))
    most = config.get("text_config", config).get(_LIMIT)
    ids, index = survey.ids(), survey.index
    split = Split("", index.folder, Rows(index, ids), "", index=index)
    prompts, answers, too_long = Counter[int](), Counter[int](), 0
    refused: list[tuple[int, str]] = []
    processor = load_processor(checkpoint)
    with Encoder(split, processor, _without_limit(config), turns=how.turns, template=how.template) as encoder:
        for at in track(range(0, len(ids), _AT_ONCE), "count tokens", -(-len(ids) // _AT_ONCE)):
            part = ids[at : at + _AT_ONCE]
            for number, found in zip(part.tolist(), _lengths(encoder, Rows(index, part)), strict=True):
                if isinstance(found, str):
                    refused.append((number, found))
                    continue
                prompt, answer = found
                prompts[prompt] += 1
                if answer:
                    answers[answer] += 1
                if most is not None and prompt + answer > most:
                    too_long += 1
                    why = f"prompt and answer are {prompt + answer:,} tokens, the model takes {most:,}; shorten the row"
                    refused.append((number, why))
    survey.refuse(refused)
    asked = spread(prompts)
    return Tokens(name, asked, spread(answers), most, too_long) if asked else None


def _lengths(encoder: Encoder, rows: Sequence[Row]) -> Iterator[tuple[int, int] | str]:
    """For each row the tokens of its prompt and of its answer, or why it does not fit the model."""
    try:
        encoded = encoder.rows(list(rows))
    except UserError:
        for row in rows:
            try:
                (one,) = encoder.rows([row])
                yield len(one.prompt), len(one.answer)
            except UserError as error:
                yield str(error).removeprefix(f"{encoder.split.place(row)}: ")
    else:
        yield from ((len(one.prompt), len(one.answer)) for one in encoded)


def _without_limit(config: dict[str, Any]) -> dict[str, Any]:
    """A config in which the model takes any length, so that the encoder measures also what is too long."""
    if "text_config" in config:
        return config | {"text_config": _without_limit(config["text_config"])}
    return {key: value for key, value in config.items() if key != _LIMIT}
