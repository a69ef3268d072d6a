"""The library does what the commands do: objects come back, progress is heard, nothing is printed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from support.cli import run
from support.plans import MOMENT

import lmmpress
from lmmpress.data import open_image, read_split
from lmmpress.result import NotRecorded
from lmmpress.tracking.client import local_store


@pytest.fixture
def short_plan(raw_plan: dict[str, Any]) -> dict[str, Any]:
    return raw_plan | {"stages": {"block": {"step": 1, "max": 1}}}


@pytest.mark.usefixtures("trusting")
def test_compress_leaves_what_the_command_leaves(short_plan: dict[str, Any], tmp_path: Path) -> None:
    heard: list[object] = []
    result = lmmpress.compress(short_plan, tmp_path / "out", progress=heard.append)
    assert {"result.json", "report.html", "compressed", "mlflow.db", "store", "plan.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    assert result == lmmpress.Result.model_validate_json((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert any(isinstance(one, lmmpress.Said) and one.words.startswith("step 1/1 block -1") for one in heard)
    assert any(isinstance(one, lmmpress.Work) and one.total and one.done == one.total for one in heard)
    client = MlflowClient(local_store(tmp_path / "out"))
    name = lmmpress.name_of_compressed(short_plan["model"])
    assert client.get_model_version_by_alias(name, "compressed").tags["lmmpress.run_key"] == result.run_key
    again = lmmpress.compress(short_plan, tmp_path / "out", resume=True, recorder=None)
    assert again.steps == result.steps


@pytest.mark.usefixtures("trusting")
def test_a_recorder_of_ones_own_hears_of_the_run(short_plan: dict[str, Any], tmp_path: Path) -> None:
    class Mine(NotRecorded):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def step(self, step: lmmpress.StepResult) -> None:
            self.heard.append(f"{step.stage} {step.decision}")

        def interrupted(self, error: BaseException | None) -> None:
            self.heard.append(f"interrupted by {type(error).__name__}")

    mine = Mine()
    lmmpress.compress(short_plan, tmp_path / "out", recorder=mine)
    assert mine.heard == ["block accepted"]
    assert not (tmp_path / "out" / "mlflow.db").exists()
    with pytest.raises(lmmpress.UserError, match="add --resume"):
        lmmpress.compress(short_plan, tmp_path / "out", recorder=mine)
    assert mine.heard[1:] == ["interrupted by UserError"]
    with pytest.raises(lmmpress.UserError, match="tasks record by themselves"):
        lmmpress.compress(short_plan, tmp_path / "other", recorder=mine, engine="kfp-local")


@pytest.mark.usefixtures("trusting")
def test_a_listener_that_raises_stops_a_run_that_can_be_carried_on(short_plan: dict[str, Any], tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def stop(event: object) -> None:
        if isinstance(event, lmmpress.Work) and event.label.startswith("distil"):
            raise EnoughError

    with pytest.raises(EnoughError):
        lmmpress.compress(short_plan, tmp_path / "out", progress=stop)
    (entry,) = MlflowClient(local_store(tmp_path / "out")).search_runs(["1"])
    assert entry.info.status == "FAILED"
    assert lmmpress.compress(short_plan, tmp_path / "out", resume=True).steps
    assert MlflowClient(local_store(tmp_path / "out")).get_run(entry.info.run_id).info.status == "FINISHED"


def test_a_plan_may_be_given_in_every_form(short_plan: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(short_plan), "utf-8")
    plans = [lmmpress.as_plan(one) for one in (short_plan, path, str(path), lmmpress.as_plan(short_plan))]
    assert plans == [plans[0]] * 4
    changed = [lmmpress.as_plan(one, ["tolerance.alpha=0.2"]) for one in (short_plan, path, plans[0])]
    assert changed == [changed[0]] * 3
    assert changed[0].tolerance.alpha == 0.2
    assert lmmpress.as_plan("sample", with_data=False).data == "sample"
    for wrong in ("smaple", "nowhere.yaml", tmp_path / "nowhere.yaml", {"modle": "x"}):
        with pytest.raises(lmmpress.UserError):
            lmmpress.as_plan(wrong)


def test_plan_sizes_are_those_of_the_command() -> None:
    changes = ["stages={block: {step: 20, max: 40}}"]
    sizes = lmmpress.plan_sizes("paper", overrides=changes)
    assert [size.widths["language.block"] for size in sizes] == [48, 28, 8]
    assert len(sizes) == 3
    assert sizes[-1] is sizes[2]
    assert sizes.as_list() == json.loads(run("plan", "--preset", "paper", "--json", "--set", changes[0]))


def test_prune_inspect_and_evaluate_are_the_commands(
    make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    source = make_checkpoint("llama")
    pruned = lmmpress.prune(source, tmp_path / "here", axis="ffn", remove=16, data=data)
    told = json.loads(
        run("prune", source, "--axis", "ffn", "--remove", 16, "--data", data, "-o", tmp_path / "there", "--json")
    )
    assert pruned.as_dict() | {"checkpoint": ""} == told | {"checkpoint": ""}
    assert pruned.parameters < pruned.parameters_before
    found = lmmpress.inspect(pruned.checkpoint)
    assert found.as_dict() == json.loads(run("inspect", tmp_path / "there", "--json"))
    assert found.parameters == pruned.parameters
    measured = lmmpress.evaluate(pruned.checkpoint, data, batch_size=4, seconds=MOMENT)
    told = json.loads(
        run("evaluate", tmp_path / "there", "--data", data, "--batch-size", 4, "--seconds", MOMENT, "--json")
    )
    assert measured.model_dump().keys() == told.keys()
    assert (measured.accuracy_by_task, measured.rows) == (told["accuracy_by_task"], told["rows"])
    again = lmmpress.prune(source, tmp_path / "again", cuts=pruned.checkpoint / "COMPRESSION.json")
    assert lmmpress.inspect(again.checkpoint).checkpoint == found.checkpoint
    with pytest.raises(lmmpress.UserError, match="say what to cut"):
        lmmpress.prune(source, tmp_path / "x", axis="ffn")
    with pytest.raises(lmmpress.UserError, match="there is no axis 'fnn'"):
        lmmpress.prune(source, tmp_path / "x", axis="fnn", remove=16)


def test_predict_answers_as_evaluate_measures(taught: Path, data: Path) -> None:
    answers = lmmpress.predict(taught, data, batch_size=5)
    assert answers.accuracy == lmmpress.evaluate(taught, data, speed=False).accuracy
    assert answers.accuracy is not None
    assert answers.accuracy > 0.5
    said = [one.text.replace(" ", "") for one in answers]  # the tiny tokenizer puts a space between words
    assert [one.right for one in answers] == [
        one.ended and text == one.wanted for one, text in zip(answers, said, strict=True)
    ]
    some = lmmpress.predict(taught, data, rows=4)
    assert 0 < len(some) < len(answers)


def test_predict_takes_questions_with_pictures(taught: Path, data: Path, tmp_path: Path) -> None:
    """A path, and an image in memory; the answers are those to the data set's own rows."""
    split = read_split(data, "test")
    rows = [split.rows[number] for number in (0, 1, 6)]
    names = [row.picture for row in rows]
    assert None not in names
    asked = [(data / str(name), row.question) for name, row in zip(names, rows, strict=True)]
    in_memory = [(open_image(split, str(name)), row.question) for name, row in zip(names, rows, strict=True)]
    known = {(one.file_name, one.question): one for one in lmmpress.predict(taught, data)}
    for found in (lmmpress.predict(taught, asked), lmmpress.predict(taught, in_memory)):
        assert [one.text for one in found] == [
            known[name, row.question].text for name, row in zip(names, rows, strict=True)
        ]
        assert [(one.right, one.wanted) for one in found] == [(None, None)] * 3
        assert found.accuracy is None
    assert len(lmmpress.predict(taught, [])) == 0


def test_what_cannot_be_answered_is_one_line(
    taught: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no picture", "utf-8")
    faults: list[tuple[list[Any], str]] = [
        ([(tmp_path / "text.png", "?")], "cannot be read as a picture"),
        ([(tmp_path / "nowhere.png", "?")], "nowhere.png"),
        ([(Image.new("RGB", (8, 8)), "?"), "no picture"], "ask them in two calls"),
    ]
    for asked, message in faults:
        with pytest.raises(lmmpress.UserError, match=message):
            lmmpress.predict(taught, asked)
    with pytest.raises(lmmpress.UserError, match=r"^question 2, '': the tokenizer makes nothing of the question"):
        lmmpress.predict(make_checkpoint("text-glm"), ["背景", ""])
    (answer,) = lmmpress.predict(make_checkpoint("text-glm"), ["背景"], longest=3)
    assert len(answer.tokens) <= 3


def test_report_writes_the_page_anew(trusting: None, short_plan: dict[str, Any], tmp_path: Path) -> None:
    lmmpress.compress(short_plan, tmp_path / "out", recorder=None)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    (tmp_path / "out" / "report.html").unlink()
    assert lmmpress.report(tmp_path / "out") == tmp_path / "out" / "report.html"
    assert (tmp_path / "out" / "report.html").read_text("utf-8") == page
    with pytest.raises(lmmpress.UserError, match="no such file"):
        lmmpress.report(tmp_path)


@pytest.mark.parametrize("out", ["s3://bucket/out", "models:/x"])
def test_an_address_is_no_folder_to_write_to(short_plan: dict[str, Any], out: str) -> None:
    with pytest.raises(lmmpress.UserError, match="writes to a folder of this machine"):
        lmmpress.compress(short_plan, out)
    with pytest.raises(lmmpress.UserError, match="writes to a folder of this machine"):
        lmmpress.prune(short_plan["model"], out, axis="block", remove=1)


EVERYTHING = """
import sys
import lmmpress
plan, data, model, out = sys.argv[1:]
lmmpress.compress(plan, f"{out}/run")
lmmpress.plan_sizes(plan)
lmmpress.prune(model, f"{out}/pruned", axis="ffn", remove=16, data=data)
lmmpress.inspect(f"{out}/pruned")
lmmpress.evaluate(f"{out}/pruned", data, seconds=0.1)
lmmpress.predict(f"{out}/pruned", data)
lmmpress.report(f"{out}/run")
"""


def test_nothing_is_printed(short_plan: dict[str, Any], data: Path, tmp_path: Path) -> None:
    """In a new process, in which nothing has been silenced before."""
    (tmp_path / "plan.json").write_text(json.dumps(short_plan), "utf-8")
    command = [
        sys.executable,
        "-c",
        EVERYTHING,
        str(tmp_path / "plan.json"),
        str(data),
        short_plan["model"],
        str(tmp_path),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_level_of_transformers_is_given_back(
    make_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        lmmpress.inspect(make_checkpoint("llama"))
        assert logger.level == logging.INFO
        assert "TRANSFORMERS_VERBOSITY" not in os.environ
    finally:
        logger.setLevel(before)
    assert torch.is_grad_enabled()
