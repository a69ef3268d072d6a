"""lmmpress compare: what it prints and writes, and one line for what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.cli import refused, run
from support.parsed_page import Page
from support.paths import ROOT
from support.plans import MOMENT

from lmmpress import Comparison

HOSTILE = "标题<script>alert(1)</script>"
SECRET = "only the file holds this"


@pytest.fixture(scope="module")
def pair(make_checkpoint: Callable[..., Path]) -> tuple[Path, Path]:
    """Two tiny models that answer differently."""
    return make_checkpoint("llama"), make_checkpoint("opt")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's rows: HTML in the texts and in the name of a picture, and a comment in the picture's file."""
    folder = tmp_path_factory.mktemp("stranger") / "data"
    folder.mkdir()
    lines = []
    for number in range(3):
        name = f"<b>{number}.png"
        comment = PngInfo()
        comment.add_text("Comment", SECRET)
        Image.new("RGB", (400, 300), (50 * number, 9, 9)).save(folder / name, pnginfo=comment)
        row = {"file_name": name, "question": HOSTILE, "answer": "红色", "task": "<i>ad", "split": "test"}
        lines.append(json.dumps(row, ensure_ascii=False))
    (folder / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


def test_it_prints_tables_and_writes_a_page_and_json(pair: Any, rows: Path, tmp_path: Path) -> None:
    printed = run("compare", *pair, "--data", rows, "-o", tmp_path / "out", "--watts", 10, "--seconds", MOMENT)
    for words in ("accuracy", "samples/s at batch ", "estimated", "rows have different answers", "comparison.html"):
        assert words in " ".join(printed.split())
    page = Page((tmp_path / "out" / "comparison.html").read_text("utf-8"))
    assert not {"script", "b>0.png", "i"} & set(page.tags)
    assert page.tags.count("img") == 3
    assert HOSTILE in page.texts
    found = Comparison.model_validate_json((tmp_path / "out" / "comparison.json").read_text("utf-8"))
    assert (found.data.rows, found.a.address, found.b.address) == (3, str(pair[0]), str(pair[1]))
    assert list(found.by_task) == ["<i>ad"]


def test_pictures_of_strangers_are_drawn_anew(pair: Any, rows: Path, tmp_path: Path) -> None:
    import base64
    import io

    run("compare", *pair, "--data", rows, "-o", tmp_path / "out", "--no-speed")
    page = Page((tmp_path / "out" / "comparison.html").read_text("utf-8"))
    shown = [base64.b64decode(str(value).partition(",")[2]) for name, value in page.attributes if name == "src"]
    assert len(shown) == 3
    for png in shown:
        assert SECRET.encode() not in png
        image = Image.open(io.BytesIO(png))
        assert image.size == (160, 120)
        assert not image.info


def test_json_is_one_object_with_the_documented_keys(pair: Any, rows: Path) -> None:
    printed = run("compare", *pair, "--data", rows, "--json", "--no-speed", "--rows", 2)
    told = json.loads(printed)
    assert told["data"]["rows"] == 2
    assert told["turns"] is None
    documented = (ROOT / "docs" / "compare.md").read_text("utf-8")
    for name in {*told, *told["a"], *told["all"], *told["data"], *told["differing"][0], *told["differing"][0]["a"]}:
        assert f"`{name}`" in documented, name


def test_every_key_that_may_occur_is_documented() -> None:
    documented = (ROOT / "docs" / "compare.md").read_text("utf-8")
    schema = Comparison.model_json_schema(mode="serialization")
    for part in (schema, *schema["$defs"].values()):
        for name in part["properties"]:
            assert f"`{name}`" in documented, name
        assert part["additionalProperties"] is False


def test_columns_of_other_names_are_the_same_rows(pair: Any, rows: Path, tmp_path: Path) -> None:
    folder = tmp_path / "renamed"
    shutil.copytree(rows, folder)
    lines = (rows / "metadata.jsonl").read_text("utf-8").replace('"question"', '"prompt"')
    (folder / "metadata.jsonl").write_text(lines, "utf-8")
    told = json.loads(run("compare", *pair, "--data", folder, "--column", "question=prompt", "--json", "--no-speed"))
    assert told["all"] == json.loads(run("compare", *pair, "--data", rows, "--json", "--no-speed"))["all"]
    assert told["data"]["rows"] == 3
    assert "question is missing" in refused("compare", *pair, "--data", folder)
    assert "unknown column" in refused("compare", *pair, "--data", folder, "--column", "qestion=prompt")


def test_what_is_wrong_is_one_line(pair: Any, rows: Path, tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    a, b = pair
    assert "there is no checkpoint" in refused("compare", a, tmp_path / "none", "--data", rows)
    assert "is no data set" in refused("compare", a, b, "--data", tmp_path)
    assert "split 'gate' has no rows; the splits are test" in refused(
        "compare", a, b, "--data", rows, "--split", "gate"
    )
    assert "has no task 'logo'" in refused("compare", a, b, "--data", rows, "--tasks", "logo")
    assert "B takes text alone" in refused("compare", a, make_checkpoint("text-glm"), "--data", rows)
    assert "writes to a folder of this machine" in refused("compare", a, b, "--data", rows, "-o", "s3://bucket/x")
    (tmp_path / "file").write_text("", "utf-8")
    assert "this is a file" in refused("compare", a, b, "--data", rows, "-o", tmp_path / "file")
    assert "nothing can be written there" in refused("compare", a, b, "--data", rows, "-o", tmp_path / "file" / "out")
    assert "--watts" in refused("compare", a, b, "--data", rows, "--watts", "0")
    run("compare", a, b, "--data", rows, "--rows", 0, code=2)
    run("compare", a, "--data", rows, code=2)
