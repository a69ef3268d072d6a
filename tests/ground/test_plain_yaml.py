"""YAML is read as plain data, or quickly refused in one line that says where the fault is."""

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lmmpress.errors import UserError
from lmmpress.settings.plain_yaml import MOST_BYTES, Document, parse_document, read_document


def read(text: str) -> Document:
    return parse_document(text, "plan.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [x, 2.5, true, null, '3']",
        "a: {b: {c: 1.0e-5}}",
        "a: &one [1, 2]\nb: *one",
        "a: &one {x: 1}\nb: {<<: *one, y: 2}",
        "a: &one {x: 1}\nb: &two {x: 3, z: 4}\nc:\n  <<: [*one, *two]\n  y: 2",
        "'a b': |\n  two\n  lines\n",
        "",
        "- 1\n- 2",
        "a: 新品",
    ],
)
def test_plain_yaml_is_read_as_by_any_yaml_reader(text: str) -> None:
    assert read(text).value == yaml.safe_load(text)
    assert not read(text).faults


def test_a_key_is_the_text_as_written() -> None:
    assert read("on: 1\n1: 2\nnull: 3").value == {"on": 1, "1": 2, "null": 3}


def test_every_value_has_its_line() -> None:
    assert read("a: 1\nb:\n  c: 2\n  d:\n  - 3\n  - 4\n").lines == {
        (): 1, ("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "d"): 4, ("b", "d", "0"): 5, ("b", "d", "1"): 6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "a: {x: 1\nb: 2",
            "line 2, column 2: not YAML: expected ',' or '}', but got ':'; the { ... } begins in line 1",
        ),
        ("a: [1, 2", "line 1, column 9: not YAML: expected ',' or ']', but got the end; the [ ... ] begins in line 1"),
        (
            "a: 'x\n\nb: 2\n",
            "not YAML: the file ends before the closing quote; the quoted text begins in line 1, column 4",
        ),
        ("a: b: c", "line 1, column 5: not YAML: a second : on this line; put the text in quotes"),
        ("a:\n\tb: 1", "line 2, column 1: not YAML: a tab where spaces have to be"),
        ("a:\n - 1\n b: 2", "line 3, column 2: not YAML: this line is indented unlike those before it"),
        ("a: 1\n---\nb: 2", "line 2, column 1: not YAML: a second document begins with ---"),
        ("a: *x", "line 1, column 4: not YAML: undefined alias 'x'"),
        ("a: @x", "line 1, column 4: not YAML: a text cannot begin with '@'; put it in quotes"),
        ("a: \x1b[31m", "line 1: a control character (code 27)"),
        ('a: "\\UFFFFFFFF"', "an escape in quotes names no character"),
        ("[" * 10_000, "line 1, column 31: not YAML: nested too deep"),
        ("- " * 10_000, "nested too deep"),
    ],
)
def test_invalid_yaml_is_reported_with_line_and_column(text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        read(text)
    assert told in str(caught.value)
    assert str(caught.value).startswith("plan.yaml")
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    ("text", "place", "fault"),
    [
        ("a: 2024-01-01", "a", "is a date"),
        ("a: !!set {x}", "a", "is a set"),
        ("a: !!binary aGk=", "a", "is binary data"),
        ("a: !!python/object/apply:os.system [ls]", "a", "is tagged"),
        ("a: !env HOME", "a", "is tagged !env"),
        ("a: &x [*x]", "a.0", "contains itself"),
        ("a: &x {b: {c: *x}}", "a.b.c", "contains itself"),
        ("a: 1\nb: 2\na: 3", "a", "stands twice, first in line 1"),
        ("? [1]\n: 2", "?", "is a key that is no text"),
        ("a: .inf", "a", "is no finite number: .inf"),
        ("a: .nan", "a", "is no finite number: .nan"),
        ("a: " + "9" * 5000, "a", "is no number"),
        ("a: 9223372036854775808", "a", "is too large a number: 9223372036854775808"),
        ('a: "\\0"', "a", "has a control character (code 0) in it"),
        ('a: "\\ud800"', "a", "has a control character (code 55296) in it"),
        ('"a\\e[31m": 1', "a\x1b[31m", "has a control character (code 27) in it"),
        ("<<: 3", "<<", "takes a value that is not a mapping"),
    ],
)
def test_yaml_beyond_the_plain_subset_is_refused_with_its_line(text: str, place: str, fault: str) -> None:
    ((found, told),) = read(text).faults.items()
    assert ".".join(found) == place
    assert told.startswith(fault)


def test_yaml_nested_less_deep_is_read() -> None:
    assert str(read("x: " + "[" * 28 + "1" + "]" * 28).value).count("[") == 28


def test_all_faults_are_noted_and_the_rest_is_read() -> None:
    document = read("a: 2024-01-01\nb: 2\nc: .nan\nb: 3")
    assert document.value == {"a": None, "b": 3, "c": None}
    assert set(document.faults) == {("a",), ("b",), ("c",)}


def test_aliases_that_expand_are_refused_quickly() -> None:
    """Nine levels of nine: a hundred million values in half a kilobyte."""
    levels = ["a0: &a0 [x]"] + [f"a{one}: &a{one} [{', '.join(9 * [f'*a{one - 1}'])}]" for one in range(1, 10)]
    begun = time.process_time()
    with pytest.raises(UserError, match="more than 10000 values, with what aliases repeat") as caught:
        read("\n".join(levels))
    assert time.process_time() - begun < 5  # and not the minutes and gigabytes of making them
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("a: 1".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("a: 1".encode("utf-32"), "is UTF-32; save it as UTF-8"),
        ("a: 1".encode("utf-16-le"), "looks like UTF-16"),
        ("a: 1\nb: 新品".encode("gbk"), "line 2: not UTF-8"),
        (b"#" * (MOST_BYTES + 1), "has at most 256 kB"),
        (b"[1, 2]", "a plan is a mapping of settings, this holds a list"),
        (b"", "this holds nothing"),
        (b"word", "this holds one value"),
    ],
)
def test_a_missing_file_is_reported(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "plan.yaml").write_bytes(data)
    with pytest.raises(UserError, match=told) as caught:
        read_document(tmp_path / "plan.yaml", "plan")
    assert str(caught.value).startswith(str(tmp_path / "plan.yaml"))


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("a: 1", "utf-8-sig")
    assert read_document(tmp_path / "plan.yaml", "plan").value == {"a": 1}


def test_a_file_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_document(tmp_path, "plan")
    with pytest.raises(UserError, match="no such plan file"):
        read_document(tmp_path / "none", "plan")
    with pytest.raises(UserError, match="cannot be read"):
        read_document(Path("a\0b"), "plan")


pieces = st.sampled_from(
    ["a", "1", ".5", "1e9", "2024-01-01", ": ", ":", "- ", "-", "? ", "[", "]", "{", "}", ", ", "\n", "\n  ", "&x ",
     "*x", "!", "!!int ", "!!set ", "!!binary ", "<<: ", "'", '"', "|\n", ">-\n", "#", "%YAML", "---\n", "...\n",
     "\\", "\t", "\x85", "\u2028", "\x00", "~", "=", "0x", "0b1", "1:2", ".inf", "@", "`", "\\x", "\\U", "é", "新"]
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(st.lists(pieces, max_size=30).map("".join) | st.text(max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    refused: tuple[str, ...] = ()
    try:
        is_plain(read(text).value)
    except UserError as error:
        refused = error.lines
    assert len(refused) <= 1
    assert "".join(refused).startswith("plan.yaml" if refused else "")


def is_plain(value: object) -> None:
    """Whether a value is plain data."""
    if isinstance(value, dict):
        for key, one in value.items():
            assert type(key) is str
            is_plain(one)
    elif isinstance(value, list):
        for one in value:
            is_plain(one)
    else:
        assert value is None or type(value) in (str, int, float, bool)
