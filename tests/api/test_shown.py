"""What results show: a line in a console, and HTML in a notebook, in which texts of strangers are text."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plans import MOMENT
from support.results import fabricated

import lmmpress
from lmmpress.printing.sheet import Grid, Picture, Shown, html

FORGED = ["<script>alert(1)</script>", "a&b", '"><img src=x onerror=y>', "one\nforged", "\x1b[2J", "s3://KEY:hush@b/p"]
ALLOWED = {"p", "table", "thead", "tbody", "tr", "th", "td", "strong", "img"}


class Reader(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@given(st.lists(st.text(st.characters(codec=None)) | st.sampled_from(FORGED), min_size=4, max_size=4))
def test_no_text_becomes_markup(texts: list[str]) -> None:
    line, head, cell, strong = texts
    page = html((line, Grid((head,), ((cell,), (strong,)), frozenset({1}))))
    read = Reader(page)
    assert read.tags == ["p", "table", "thead", "tr", "th", "tbody", "tr", "td", "tr", "td", "strong"]
    assert not read.attributes
    assert "hush" not in page
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", page)
    page.encode()


def test_a_picture_stands_in_the_page_itself() -> None:
    read = Reader(html((Grid(("picture",), ((Picture(b"\x89PNG"),),)),)))
    assert ("src", "data:image/png;base64,iVBORw==") in read.attributes


@pytest.fixture
def shown(make_checkpoint: Any, taught: Path, data: Path, tmp_path: Path) -> dict[str, Shown]:
    """A result of every kind."""
    pruned = lmmpress.prune(make_checkpoint("llama"), tmp_path / "<b>pruned", axis="block", remove=1)
    return {
        "Result": fabricated(),
        "Sizes": lmmpress.plan_sizes("paper"),
        "Pruned": pruned,
        "Inspection": lmmpress.inspect(pruned.checkpoint),
        "Description": lmmpress.inspect_data(data),
        "Measurement": lmmpress.evaluate(taught, data, seconds=MOMENT),
        "Answers": lmmpress.predict(taught, data),
        "Comparison": lmmpress.compare(taught, make_checkpoint("llama"), data, rows=4, seconds=MOMENT),
    }


def test_every_result_fits_on_a_few_lines_and_makes_a_page(shown: dict[str, Shown]) -> None:
    for name, result in shown.items():
        assert type(result).__name__ == name
        assert len(repr(result)) < 400, name
        assert "\n" not in repr(result), name
        read = Reader(result._repr_html_())
        assert set(read.tags) <= ALLOWED, name
        assert {key for key, _ in read.attributes} <= {"src", "alt"}, name
    assert "&lt;b&gt;pruned" in shown["Pruned"]._repr_html_()
    assert str(shown["Result"]) == repr(shown["Result"]), "print() shows the same"


def test_a_page_says_what_the_command_prints(shown: dict[str, Shown]) -> None:
    pages = {name: " ".join(Reader(result._repr_html_()).texts) for name, result in shown.items()}
    for name, words in {
        "Result": "x smaller",
        "Sizes": "5.436 B",
        "Pruned": "parameters",
        "Inspection": "block of language -1",
        "Description": "imagefolder, 96 rows from 1 file",
        "Measurement": "samples/s at batch",
        "Answers": "accuracy",
        "Comparison": "4 of 4 rows have different answers",
    }.items():
        assert words in pages[name], name
    assert Reader(shown["Answers"]._repr_html_()).tags.count("img") == len(shown["Answers"])  # type: ignore[arg-type]


def test_answers_are_a_sequence(taught: Path, data: Path) -> None:
    answers = lmmpress.predict(taught, data)
    assert answers[0] is answers.answers[0]
    assert isinstance(answers[:2], lmmpress.Answers)
    assert len(answers[:2]) == 2
    assert answers[0] in answers
