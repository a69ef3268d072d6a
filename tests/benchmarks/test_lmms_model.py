"""The model class for lmms-eval answers what lmmpress answers; lmms-eval's base class is a stand-in here."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from support.data import COLORS
from support.tiny import write_checkpoint

import lmmpress
from lmmpress.benchmarks import start_harness

QUESTIONS = ("图片的背景颜色是什么?", "标题:新品包邮", "标题", "图片?")
BASE = "class lmms:\n    def __init__(self):\n        self.task_dict = {}\n"
ANSWERS = {"max_new_tokens": 5, "until": ["\n\n"]}


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    package = tmp_path / "stand-in" / "lmms_eval" / "api"
    package.mkdir(parents=True)
    (package / "model.py").write_text(BASE, "utf-8")
    monkeypatch.syspath_prepend(tmp_path / "stand-in")
    for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "lmmpress_lmms_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return start_harness.loaded("lmmpress_lmms_model", str(Path(start_harness.__file__).with_name("lmms_model.py")))


def requests(model: Any, settings: dict[str, Any], pictures: list[Image.Image]) -> list[SimpleNamespace]:
    """The requests of a task with a row for each picture and question, as lmms-eval makes them."""
    asked = [(picture, question) for picture in pictures for question in QUESTIONS]
    model.task_dict = {"task": {"test": asked}}
    return [
        SimpleNamespace(args=(question, dict(settings), lambda row: [row[0]], number, "task", "test"))
        for number, (_, question) in enumerate(asked)
    ]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("kind", ["llama", "flan-t5", "llava-clip-llama"])
def test_it_answers_as_lmmpress_does(kind: str, batch_size: int, code: ModuleType, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "model", kind)
    pictures = [Image.new("RGB", (16, 16), color) for color in COLORS.values()]
    model = code.Checkpoint(str(checkpoint), batch_size=str(batch_size), device="cpu")
    found = model.generate_until(requests(model, ANSWERS, pictures))
    asked = [(picture, question) for picture in pictures for question in QUESTIONS]
    expected = lmmpress.predict(checkpoint, asked, longest=5)
    assert found == [answer.text for answer in expected.answers]
    assert len(set(found)) > 1


def test_an_answer_ends_where_its_task_says(code: ModuleType, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "model", "llama")
    pictures = [Image.new("RGB", (16, 16), color) for color in COLORS.values()]
    model = code.Checkpoint(str(checkpoint), device="cpu")
    whole = model.generate_until(requests(model, ANSWERS, pictures))
    stop = max(whole, key=len).split()[-1]
    ended = model.generate_until(requests(model, ANSWERS | {"until": stop}, pictures))
    assert ended == [answer.split(stop)[0] for answer in whole]


def test_what_it_cannot_measure_is_said(code: ModuleType, tmp_path: Path) -> None:
    model = code.Checkpoint(str(write_checkpoint(tmp_path / "model", "llama")), device="cpu")
    with pytest.raises(NotImplementedError, match="for generated answers only"):
        model.loglikelihood([])
