"""An advertisement: its attributes, drawn at random and independently, and the questions about it."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from lmmpress.sample.copywriting import ANSWERS, CLASSES, TASKS, Title, write_question, write_title


class Advert(NamedTuple):
    """The attributes of one advertisement; every number is an index into the answers of its task."""

    background_color: int
    manifestation: int
    pictogram: int  # class shown in the picture; the renderer chooses a drawing of that class
    logo: int
    style: int
    title: Title


class Row(NamedTuple):
    """One question about one advertisement."""

    task: str
    question: str
    answer: str


def advert_rng(seed: int, split: str, index: int) -> Random:
    """The random stream of one image, so that an image does not depend on the process or the order of drawing."""
    return Random(f"{seed}/{split}/{index}")


def draw_advert(rng: Random) -> Advert:
    """Draw every attribute uniformly and independently: no attribute may reveal another."""
    return Advert(
        background_color=rng.randrange(len(ANSWERS["background_color"])),
        manifestation=rng.randrange(len(ANSWERS["manifestation"])),
        pictogram=rng.randrange(len(CLASSES)),
        logo=rng.randrange(len(ANSWERS["logo"])),
        style=rng.randrange(len(ANSWERS["style"])),
        title=write_title(rng),
    )


def answer(advert: Advert, task: str) -> str:
    """The right answer of a task. The content is the product that the title sells, or else the pictogram."""
    if task == "content":
        product = advert.title.product
        return CLASSES[advert.pictogram if product is None else product]
    attribute: int = getattr(advert, task)
    return ANSWERS[task][attribute]


def ask(advert: Advert, rng: Random) -> list[Row]:
    """The five rows of an advertisement: one for each task, in the order of `TASKS`."""
    return [Row(task, write_question(task, advert.title.text, rng), answer(advert, task)) for task in TASKS]
