"""docs/data.md: its examples are read as they stand, and what it says the command prints is what it prints."""

import re
from pathlib import Path

import pytest
from PIL import Image
from support.cli import run
from support.paths import ROOT

from lmmpress import inspect_data
from lmmpress.data import read_split
from lmmpress.data.containers.recognise import CONTAINERS
from lmmpress.settings.reading import FIELDS

PAGE = (ROOT / "docs" / "data.md").read_text("utf-8")
FILES = dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)```$", PAGE, re.MULTILINE | re.DOTALL))
PROGRAMS = re.findall(r"^```python\n(.*?)```$", PAGE, re.MULTILINE | re.DOTALL)
ONE_ROW = {name: text for name, text in FILES.items() if "/" not in name}


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (1, 2, 3)).save(path)


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """That of the row of all examples."""
    folder = tmp_path_factory.mktemp("form")
    image(folder / "images" / "0001.png")
    (folder / "metadata.jsonl").write_text(FILES["metadata.jsonl"], "utf-8")
    return read_split(folder, "test").digest


@pytest.mark.parametrize("name", ONE_ROW)
def test_the_example_of_a_file_is_the_same_row_in_every_form(tmp_path: Path, digest: str, name: str) -> None:
    image(tmp_path / "images" / "0001.png")
    (tmp_path / name).write_text(ONE_ROW[name], "utf-8")
    assert inspect_data(tmp_path).faults == ()
    assert read_split(tmp_path, "test").digest == digest


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_the_example_of_a_program_writes_the_same_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str, number: int
) -> None:
    image(tmp_path / "images" / "0001.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(PROGRAMS[number], "docs/data.md", "exec"), {})
    saved = tmp_path / "saved"
    assert read_split(saved if saved.exists() else tmp_path, "test").digest == digest


def test_there_is_an_example_of_every_form_and_no_column_is_forgotten() -> None:
    assert len(ONE_ROW) == 6
    assert len(PROGRAMS) == 3
    for container in CONTAINERS:
        assert f"[{container.name.removesuffix(' files').removesuffix(' shards')}](#" in PAGE
    (listed,) = re.findall(r"The columns are (.*?)\.\n", PAGE, re.DOTALL)
    assert tuple(re.findall(r"`(\w+)`", listed)) == FIELDS


def test_the_command_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (console,) = re.findall(r"^```console\n\$ lmmpress data ads\n(.*?)```$", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    for number, side in ((1, 16), (2, 20), (3, 16), (5, 64)):
        Path("ads").mkdir(exist_ok=True)
        Image.new("RGB", (side, 16), (number, 2, 3)).save(f"ads/{number}.png")
    Path("ads", "rows.jsonl").write_text(FILES["ads/rows.jsonl"], "utf-8")
    assert run("data", "ads", code=2) == console
