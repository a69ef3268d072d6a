"""What the trigger tells people in every language: each text is used, and gets just its values."""

import ast
import string
from collections.abc import Iterator

import pytest
from support.paths import ROOT

from lmmpress.trigger.claims import Cause, NotAllowedError, State
from lmmpress.trigger.notice_settings import NoticeKind
from lmmpress.trigger.texts import Text, core_texts


def made_in(source: str) -> Iterator[tuple[str, set[str] | None]]:
    """The texts that a module makes: the key, and the names of the values; None where they are not all written out. Of
    an f-string the key ends with a star."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Text" and node.args:
            names = {keyword.arg for keyword in node.keywords}
            values = None if None in names else {name for name in names if name}
            for key in keys_of(node.args[0]):
                yield key, values


def keys_of(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return [*keys_of(node.body), *keys_of(node.orelse)]
    if isinstance(node, ast.JoinedStr):
        assert isinstance(node.values[0], ast.Constant)
        return [str(node.values[0].value) + "*"]
    assert isinstance(node, ast.Constant), "a key is written where its text is made, so that it can be found"
    return [str(node.value)]


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_each_text_is_made_somewhere_with_just_its_values() -> None:
    made = [
        (file.name, key, values)
        for file in sorted((ROOT / "lmmpress" / "trigger").rglob("*.py"))
        for key, values in made_in(file.read_text("utf-8"))
    ]
    begins = tuple(key[:-1] for _, key, _ in made if key.endswith("*"))
    unused = set(core_texts()) - {key for _, key, _ in made}
    assert {key for key in unused if not key.startswith(begins)} == set()
    for file, key, values in made:
        if not key.endswith("*"):
            assert key in core_texts(), (file, key)
            assert values is None or values == fields(core_texts()[key]["en"]), (file, key)


def test_there_is_a_text_for_everything_that_has_a_name() -> None:
    needed = [f"claim.{one}" for one in State]
    needed += [f"notice.title.{one}" for one in NoticeKind] + [f"notice.cause.{one}" for one in Cause]
    assert set(needed) <= set(core_texts())


def test_a_text_holds_texts_and_is_english_as_a_string() -> None:
    text = Text("refused.ended", run="run-1", state=State.lost.text)
    assert str(text) == "run-1 has ended: it is lost"
    assert text.to("zh") == "运行 run-1 已结束，状态为“已丢失”"
    assert text == Text("refused.ended", run="run-1", state=State.lost.text)


def test_a_value_of_a_strangers_is_no_template() -> None:
    assert str(Text("refused.ended", run="{state}{0.x}", state="{run}")) == "{state}{0.x} has ended: it is {run}"


def test_a_refusal_has_its_texts_and_the_same_lines_in_english() -> None:
    two = (Text("refused.why"), Text("refused.busy", compressed="a\x07b-compressed"))
    with pytest.raises(NotAllowedError) as caught:
        raise NotAllowedError(*two)
    assert caught.value.texts == two
    assert caught.value.lines[0] == str(two[0])
    assert "a\\x07b-compressed" in caught.value.lines[1]
