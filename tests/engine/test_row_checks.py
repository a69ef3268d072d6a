"""Faults of rows in any split are reported before the first step, and no files are left behind."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import run
from support.data import write_data
from support.tasks import asked_by

from lmmpress.data import Split
from lmmpress.engine import row_checks as checks
from lmmpress.engine.compression import compress
from lmmpress.engine.misfits import way_out
from lmmpress.engine.row_checks import check_all_rows, read_splits
from lmmpress.engine.run import begin, check
from lmmpress.engine.run_splits import split_names, split_of
from lmmpress.errors import UserError
from lmmpress.plan import Plan, parse_plan
from lmmpress.store import open_store
from lmmpress.tasks.preparation import prepare

SIZES = {"score": 2, "distill": 4, "gate": 2, "test": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", SIZES)


@pytest.fixture
def plan_for(raw_plan: dict[str, Any], folder: Path) -> Callable[..., Plan]:
    def make(**changes: Any) -> Plan:
        return parse_plan(raw_plan | {"data": str(folder), "stages": {"block": {"step": 1, "max": 1}}} | changes)

    return make


def change_rows(folder: Path, split: str, **changes: Any) -> None:
    """Change the last row of a split; a value of None takes the key away."""
    path = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    row = [row for row in rows if row["split"] == split][-1]
    row.update(changes)
    lines = [json.dumps({key: value for key, value in row.items() if value is not None}) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def rename_column(folder: Path, ours: str, theirs: str) -> None:
    path = folder / "metadata.jsonl"
    path.write_text(path.read_text("utf-8").replace(f'"{ours}":', f'"{theirs}":'), "utf-8")


def cut_short(folder: Path) -> None:
    last = sorted((folder / "images").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:70])


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated picture": (cut_short, "0009.png cannot be read as an image: .* line 19, asking"),
    "question too long": (
        lambda folder: change_rows(folder, "test", question="图" * 100),
        "line 20.*the model takes 96",
    ),
    "image token": (lambda folder: change_rows(folder, "test", question="<image>图"), "line 20.*holds <image>"),
}


@pytest.fixture
def broken(folder: Path, request: pytest.FixtureRequest) -> str:
    """A data set with a fault in its last test row, and the message about it."""
    make, message = FAULTS[request.param]
    make(folder)
    return message


@pytest.mark.parametrize("broken", FAULTS, indirect=True)
def test_a_fault_of_the_test_split_ends_a_run_before_anything_is_written(
    broken: str, plan_for: Callable[..., Plan], make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    plan = plan_for(model=str(make_checkpoint("opt")))
    with pytest.raises(UserError, match=broken):
        compress(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("misfit", "why"),
    [
        ({"question": "图" * 100}, "the model takes 96"),
        ({"question": "<image>图"}, "the question holds <image>"),
    ],
)
def test_where_faulty_rows_are_skipped_one_that_does_not_fit_the_model_names_the_command_that_leaves_it_out(
    misfit: dict[str, str],
    why: str,
    plan_for: Callable[..., Plan],
    folder: Path,
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change_rows(folder, "test", **misfit)
    rename_column(folder, "question", "prompt")
    skipping = plan_for(model=str(make_checkpoint("opt")), columns={"question": "prompt"}, data_errors="skip")
    teacher = check(skipping.model_copy(update={"data_checks": "lazy"})).teacher
    with pytest.raises(UserError, match=f"line 20.*{re.escape(why)}") as caught:
        check_all_rows(skipping, teacher)
    (line,) = caught.value.lines
    (command,) = re.findall(r"beforehand: lmmpress (.*) writes a copy without them; its columns have our names", line)
    monkeypatch.chdir(tmp_path)
    run(*shlex.split(command), code=2)
    clean = skipping.model_copy(update={"data": str(tmp_path / "OUT"), "columns": {}})
    checked = check_all_rows(clean, teacher)
    assert checked is not None
    assert checked.counts == {"rows": 19, "images": 10}


def test_it_names_that_command_only_where_faulty_rows_are_skipped_and_also_if_rows_are_checked_late(
    plan_for: Callable[..., Plan], folder: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    change_rows(folder, "test", question="图" * 100)
    model = str(make_checkpoint("opt"))
    with pytest.raises(UserError, match="the model takes 96") as caught:
        compress(plan_for(model=model), tmp_path / "out")
    assert "--fix" not in str(caught.value)
    with pytest.raises(UserError, match=r"the model takes 96.*--fix OUT writes a copy"):
        compress(plan_for(model=model, data_errors="skip", data_checks="lazy"), tmp_path / "late")


def test_the_command_reads_rows_as_the_plan_does(plan_for: Callable[..., Plan]) -> None:
    plan = plan_for(
        data="/d", model="/m", columns={"task": {"text": "one caption"}}, metrics="kl", turns="all", template="never"
    )
    assert shlex.split(way_out(plan)) == [
        *("lmmpress", "data", "/d", "--checkpoint", "/m", "--column", 'task={"text":"one caption"}', "--unlabelled"),
        *("--turns", "all", "--template", "never", "--fix", "OUT"),
    ]


@pytest.mark.parametrize("broken", ["truncated picture"], indirect=True)
def test_a_fault_of_the_test_split_ends_a_pipelines_first_task(
    broken: str, plan_for: Callable[..., Plan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_for(store=str(tmp_path / "store"))
    with pytest.raises(SystemExit) as ended:
        prepare(**asked_by(plan, "name"))
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "0009.png cannot be read as an image" in line
    assert not list(open_store(str(tmp_path / "store")).objects.entries("checkpoints/"))


@pytest.mark.parametrize("broken", ["truncated picture"], indirect=True)
def test_a_fault_of_the_test_split_ends_a_local_pipeline_before_its_tasks(
    broken: str, plan_for: Callable[..., Plan], tmp_path: Path
) -> None:
    pytest.importorskip("kfp")
    from lmmpress.kubeflow.local_runner import compress_in_tasks
    from lmmpress.tasks.granularity import Granularity

    with pytest.raises(UserError, match=broken):
        compress_in_tasks(plan_for(), "name", tmp_path / "out", Granularity.stage)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("broken", ["truncated picture"], indirect=True)
@pytest.mark.usefixtures("aloud")
def test_lazy_checks_leave_the_test_split_for_later_and_say_so(
    broken: str, plan_for: Callable[..., Plan], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_for(data_checks="lazy")
    teacher = check(plan).teacher
    assert check_all_rows(plan, teacher) is None
    told = capsys.readouterr().err
    assert f"{folder}: data_checks is lazy: 20 rows and 10 images are checked when they are first used" in told


@pytest.mark.usefixtures("aloud")
def test_rows_are_checked_once_for_the_same_model_and_data(
    plan_for: Callable[..., Plan],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[str] = []

    def noted(split: Split, processor: Any, config: Any, **_: Any) -> None:
        seen.append(split.name)

    monkeypatch.setattr(checks, "check_rows", noted)
    plan, store = plan_for(), open_store(str(tmp_path / "store"))
    teacher = check(plan).teacher
    checked = check_all_rows(plan, teacher, store)
    assert checked is not None
    assert seen == ["score", "distill", "gate", "test"]
    assert "20 rows and 10 images are checked" in capsys.readouterr().err
    checked.note(store)
    assert check_all_rows(plan, teacher, store) == checked
    assert len(seen) == 4
    longer = tmp_path / "longer"
    shutil.copytree(folder, longer)
    change_rows(longer, "test", answer="红")
    check_all_rows(plan_for(data=str(longer)), teacher, store)
    assert len(seen) == 8


# --- which splits a run uses ---


def renamed(folder: Path, **names: str) -> None:
    path = folder / "metadata.jsonl"
    text = path.read_text("utf-8")
    for old, new in names.items():
        text = text.replace(f'"split": "{old}"', f'"split": "{new}"')
    path.write_text(text, "utf-8")


@pytest.mark.usefixtures("aloud", "trusting")
def test_the_usual_splits_are_used_and_said(
    plan_for: Callable[..., Plan], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed(folder, score="train", distill="train", gate="validation")
    plan = plan_for()
    result = compress(plan, tmp_path / "out")
    assert len(result.steps) == 1
    assert split_names(plan) == {"score": "train", "distill": "train", "gate": "validation", "test": "test"}
    assert len(split_of(plan, "distill").rows) == 12
    told = "train is used to score, train to distil, validation for the gate, test to test"
    assert capsys.readouterr().err.count(told) == 1


def test_splits_that_the_plan_names_are_used_as_they_are(plan_for: Callable[..., Plan], folder: Path) -> None:
    renamed(folder, score="train", distill="train", gate="validation")
    plan = plan_for(splits={"score": "train", "distill": "train", "gate": "test", "test": "test"})
    assert split_names(plan)["gate"] == "test"
    with pytest.raises(UserError, match=r"split 'gate' has no rows; the splits are test, train, validation; choose"):
        read_splits(plan_for(splits={"score": "train", "distill": "train"}))


def test_a_picture_that_is_learned_from_and_measured_on_is_refused(plan_for: Callable[..., Plan], folder: Path) -> None:
    shutil.copyfile(folder / "images" / "0002.png", folder / "images" / "0009.png")
    with pytest.raises(UserError, match=r"image images/0009\.png is in the test and in the distill split \(under"):
        check(plan_for())
    names = {"score": "score", "distill": "test", "gate": "gate", "test": "test"}
    check(plan_for(splits=names))  # a plan that names one split for both means it


@pytest.mark.usefixtures("aloud")
def test_rows_of_text_in_two_splits_are_counted_in_a_note(
    plan_for: Callable[..., Plan],
    folder: Path,
    make_checkpoint: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = folder / "metadata.jsonl"
    rows = [json.loads(line) | {"file_name": None} for line in path.read_text("utf-8").splitlines()]
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    check(plan_for(model=str(make_checkpoint("text-glm"))))
    assert "4 of the 4 rows of the test split have the same question and answer" in capsys.readouterr().err


def test_a_model_that_was_blind_begins_another_run(
    plan_for: Callable[..., Plan], make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """What was computed while no picture reached the model is not used again."""
    store = open_store(str(tmp_path / "store"))
    blind = tmp_path / "blind"
    shutil.copytree(make_checkpoint("llama"), blind)
    held = json.loads((blind / "processor_config.json").read_text("utf-8"))
    (blind / "processor_config.json").write_text(json.dumps(held | {"num_query_tokens": None}), "utf-8")
    plan = plan_for()
    keys = {begin(plan, store, path).key for path in (blind, make_checkpoint("llama"))}
    assert len(keys) == 2


@pytest.mark.parametrize("kind", ["a file", "below a file", "a folder of others"])
def test_an_unusable_output_folder_is_refused_before_rows_are_read(
    plan_for: Callable[..., Plan], folder: Path, tmp_path: Path, kind: str
) -> None:
    (folder / "metadata.jsonl").write_text("{", "utf-8")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    out = {"a file": taken / "file", "below a file": taken / "file" / "out", "a folder of others": taken}[kind]
    with pytest.raises(UserError, match=r"cannot be used as the run's folder|is not empty and holds no run"):
        compress(plan_for(), out)
    assert [path.name for path in taken.iterdir()] == ["file"]
