"""Text of foreign files is printed so that it cannot forge output."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmmpress.errors import UserError
from lmmpress.printing.visible import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model.safetensors", "model.safetensors"),
        ("新品包邮 é", "新品包邮 é"),
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("shard\nerror: forged", r"shard\nerror: forged"),
        ("one\r\ttwo", r"one\r\ttwo"),
        ("three\u2028four", r"three\u2028four"),
        ("gnp\u202egpj.exe", r"gnp\u202egpj.exe"),
        ("lone \ud800", r"lone \ud800"),
        ("👩\u200d👩", "👩\u200d👩"),
    ],
)
def test_characters_that_could_forge_a_line_are_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters(codec=None)))
def test_any_text_is_one_line_that_can_be_written(text: str) -> None:
    assert len(visible(text).splitlines()) <= 1
    visible(text).encode("utf-8")


def test_an_error_has_a_line_for_each_fault_and_no_more() -> None:
    assert str(UserError("first\nerror: forged", "second")) == "first\\nerror: forged\nsecond"
