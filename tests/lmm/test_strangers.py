"""Randomly damaged checkpoints and rows: they are read or are a one-line error, never a traceback, and no file is
written. Quick by default; `make test-long` tries more of each kind."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmmpress.data import METADATA, read_split
from lmmpress.errors import UserError
from lmmpress.files.allow_list import INDEX, RECORD, WEIGHTS
from lmmpress.lmm.checkpoint import read_checkpoint
from lmmpress.lmm.compression_record import cuts_of, read_record
from lmmpress.lmm.processor import load_processor
from lmmpress.lmm.weights import stored_shapes

QUICK, LONG = 25, 100
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([10**6, 10**12, 2**70, -(2**70), 1e308, float("nan"), float("inf"), 0.5]),
    st.sampled_from(["", "../..", "/etc/passwd", "a\x1b[31m", "x\nerror: forged", "\ud800", "adapter.bin", "evil.X"]),
    st.just([]),
    st.just({}),
    st.just([[3]]),
    st.just({"a": {"b": None}}),
)
deep = st.sampled_from(["[" * 5_000, '{"a":' * 5_000])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside of a JSON value, its own included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in inner for found in places(part, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The same JSON value with another one at that path."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@st.composite
def damaged_json(draw: st.DrawFn, text: str) -> bytes:
    """A JSON text with one to three of its values replaced, or cut short, or not JSON at all."""
    how = draw(st.sampled_from(["values", "values", "values", "added", "cut", "deep", "bytes"]))
    value = json.loads(text)
    if how == "cut":
        return text.encode()[: draw(st.integers(0, len(text)))]
    if how == "deep":
        return draw(deep).encode()
    if how == "bytes":
        return draw(st.binary(max_size=64))
    for _ in range(draw(st.integers(1, 3))):
        if how == "added" and isinstance(value, dict):
            name = draw(st.sampled_from([*value, "transformers_weights", "quantization_config", "auto_map", "a\x1b"]))
            value = value | {name: draw(odd)}
        else:
            value = replaced(value, draw(st.sampled_from(places(value))), draw(odd))
    return json.dumps(value).encode()


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with a few changed, cut short, or made longer."""
    how = draw(st.sampled_from(["changed", "cut", "longer"]))
    if how == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if how == "longer":
        return data + draw(st.binary(min_size=1, max_size=16))
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        changed[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


@pytest.fixture(scope="module")
def sound(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with an index and the record of a cut."""
    folder = tmp_path_factory.mktemp("stranger") / "checkpoint"
    shutil.copytree(make_checkpoint("llama"), folder)
    cut = {"tower": "language", "axis": "ffn", "amount": 1, "keep": {"language.ffn.0": [0, 1]}}
    (folder / RECORD).write_text(json.dumps({"format": 1, "teacher": "0" * 64, "history": [{"cut": cut}]}), "utf-8")
    return folder


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def answers_or_says_one_line(look: Callable[[], object], folder: Path) -> None:
    before, said = listing(folder.parent), UserError("")
    try:
        look()
    except UserError as error:
        said = error
    assert len(said.lines) == 1
    assert str(said).isprintable()
    assert listing(folder.parent) == before


def examples(number: int) -> Any:
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,  # the same every day; to hunt, raise LONG and take this line out
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def spoiled(folder: Path, name: str, data: bytes, look: Callable[[Path], object]) -> None:
    """Replace one file of the checkpoint, read it, and put the file back."""
    path = folder / name
    whole = path.read_bytes() if path.exists() else None
    path.write_bytes(data)
    try:
        answers_or_says_one_line(lambda: look(folder), folder)
    finally:
        path.unlink() if whole is None else path.write_bytes(whole)


JSONS: dict[str, Callable[[Path], object]] = {
    "config.json": read_checkpoint,
    "generation_config.json": read_checkpoint,
    "tokenizer.json": load_processor,
    "tokenizer_config.json": load_processor,
    "processor_config.json": load_processor,
    RECORD: lambda folder: cuts_of(read_record(folder) or {"history": []}),
}


@pytest.mark.parametrize("number", [QUICK, pytest.param(LONG, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", JSONS)
def test_a_damaged_json_file_is_read_or_is_a_one_line_error(sound: Path, name: str, number: int) -> None:
    text = (sound / name).read_text("utf-8")

    @examples(number)
    @given(damaged_json(text))
    def look(data: bytes) -> None:
        spoiled(sound, name, data, JSONS[name])

    look()


@pytest.mark.parametrize("number", [QUICK, pytest.param(LONG, marks=pytest.mark.long)])
def test_a_damaged_index_is_read_or_is_a_one_line_error(sound: Path, number: int) -> None:
    weight_map = dict.fromkeys(stored_shapes(sound), "model-1.safetensors")
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})
    weights = (sound / WEIGHTS).read_bytes()
    (sound / WEIGHTS).rename(sound / "model-1.safetensors")

    @examples(number)
    @given(damaged_json(text))
    def look(data: bytes) -> None:
        spoiled(sound, INDEX, data, read_checkpoint)

    try:
        look()
    finally:
        (sound / "model-1.safetensors").unlink()
        (sound / WEIGHTS).write_bytes(weights)


@pytest.mark.parametrize("number", [QUICK, pytest.param(LONG, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["header", "bytes"])
def test_a_damaged_weight_file_is_read_or_is_a_one_line_error(sound: Path, kind: str, number: int) -> None:
    whole = (sound / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header, body = whole[8 : 8 + length], whole[8 + length :]
    damaged = damaged_json(header.decode()) if kind == "header" else damaged_bytes(whole[: 8 + length])

    @examples(number)
    @given(damaged)
    def look(data: bytes) -> None:
        written = struct.pack("<Q", len(data)) + data if kind == "header" else data
        spoiled(sound, WEIGHTS, written + body, read_checkpoint)

    look()


@pytest.mark.parametrize("number", [QUICK, pytest.param(LONG, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["json", "bytes"])
def test_damaged_rows_are_read_or_are_a_one_line_error(
    data: Path, tmp_path_factory: pytest.TempPathFactory, kind: str, number: int
) -> None:
    folder = tmp_path_factory.mktemp("rows") / "data"
    shutil.copytree(data, folder)
    first, *others = (folder / METADATA).read_text("utf-8").splitlines()
    rest = "\n".join(["", *others, ""]).encode()
    damaged = damaged_json(first) if kind == "json" else damaged_bytes(first.encode())

    @examples(number)
    @given(damaged)
    def look(row: bytes) -> None:
        spoiled(folder, METADATA, row + rest, lambda place: read_split(place, "score"))

    look()
