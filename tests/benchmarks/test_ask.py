"""A harness is started as its own program, sees nothing of the checkpoint but its files, and ends with its parent."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from support import harness
from support.tiny import write_checkpoint

from lmmpress.benchmarks import Asked, ask, asked_for
from lmmpress.errors import UserError
from lmmpress.host import offline


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"), "text-glm")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("LMMPRESS_HARNESS_PYTHON", raising=False)
    return folder


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return harness.install(tmp_path, monkeypatch)


def asked(tasks: str = "colours", include_path: Path | None = None, few_shot: int | None = None) -> Asked:
    return asked_for(tasks, include_path, few_shot, sys.executable, 4)


def test_it_is_started_by_its_own_command_line(checkpoint: Path, module: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "my tasks"
    tasks.mkdir()
    ask(checkpoint, asked("colours,mmlu_*", tasks, 5))
    told = harness.told(module)
    given = dict(zip(told["arguments"][::2], told["arguments"][1::2], strict=True))
    assert given.pop("--model_args").endswith(",trust_remote_code=False")
    assert given.pop("--output_path")
    assert given == {
        "--model": "hf",
        "--tasks": "colours,mmlu_*",
        "--batch_size": "4",
        "--include_path": str(tasks),
        "--num_fewshot": "5",
    }
    assert told["folder"] == str(tasks), "relative paths in tasks are relative to their folder"
    assert told["input"] == "", "nobody answers its questions"


def test_it_gets_the_files_of_the_checkpoint_and_no_code(checkpoint: Path, module: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    for file in checkpoint.iterdir():
        (stranger / file.name).write_bytes(file.read_bytes())
    (stranger / "custom_generate").mkdir()
    for name in ("custom_generate/generate.py", "modeling_evil.py", "pytorch_model.bin"):
        (stranger / name).write_text("raise SystemExit", "utf-8")
    ask(stranger, asked())
    assert harness.told(module)["files"] == sorted(file.name for file in checkpoint.iterdir())


def test_it_imports_nothing_from_the_current_directory(
    checkpoint: Path, module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("torch", "json", "runpy", "lm_eval"):
        (here / f"{name}.py").write_text("raise SystemExit('imported from the current directory')", "utf-8")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", os.environ["PYTHONPATH"] + os.pathsep)
    ask(checkpoint, asked())
    told = harness.told(module)
    assert not {"", str(here)} & set(told["path"])
    assert told["folder"] != str(here)
    assert told["beside"] == []


@pytest.mark.parametrize(("said", "inherited"), [(None, None), ("1", "1"), ("0", "0")])
def test_it_is_offline_only_if_the_user_is(
    said: str | None, inherited: str | None, checkpoint: Path, module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "_ours", [])
    monkeypatch.setenv("HF_HUB_OFFLINE", "any")  # what the test leaves is put back
    monkeypatch.delenv("HF_HUB_OFFLINE")
    if said is not None:
        monkeypatch.setenv("HF_HUB_OFFLINE", said)
    offline.stay_offline()
    assert os.environ["HF_HUB_OFFLINE"] == (said or "1"), "lmmpress itself stays offline"
    ask(checkpoint, asked())
    assert harness.told(module)["environment"].get("HF_HUB_OFFLINE") == inherited


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("fails", "ValueError: no such task"),
        ("says_little", "it cannot be"),
        ("ends_at_once", "it was ended by SIGKILL, perhaps because memory ran out"),
        ("writes_nothing", "RuntimeError: the device is busy"),
    ],
)
def test_a_failure_is_one_line_with_its_reason_and_the_log(
    does: str, reason: str, checkpoint: Path, module: Path, scratch: Path
) -> None:
    with pytest.raises(UserError) as caught:
        ask(checkpoint, asked(does))
    (log,) = scratch.glob("*/*")
    assert log.name == "harness.log", "all else is gone"
    line = str(caught.value)
    assert line.startswith("lm_eval 0.4.13 failed: ")
    assert line.endswith(f"; the whole log is {log}")
    assert reason in line
    assert line.isprintable()


def test_nothing_stays_of_what_went_well(checkpoint: Path, module: Path, scratch: Path) -> None:
    ask(checkpoint, asked())
    assert not list(scratch.iterdir())


WAITS = """
import sys, tempfile
from pathlib import Path
from lmmpress.benchmarks import ask, asked_for
tempfile.tempdir = sys.argv[2]
ask(Path(sys.argv[1]), asked_for("hangs", None, None, sys.executable, 1))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_it_ends_with_the_process_that_started_it(
    how: signal.Signals, checkpoint: Path, module: Path, scratch: Path
) -> None:
    parent = subprocess.Popen([sys.executable, "-c", WAITS, checkpoint, scratch], stderr=subprocess.DEVNULL)
    while not (module / "told.json").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    child = psutil.Process(harness.told(module)["pid"])
    parent.send_signal(how)
    parent.wait()
    child.wait(timeout=60)
    assert not child.is_running()
    if how is signal.SIGINT:
        assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    "tasks", ["", "a,,b", "-a", "--trust_remote_code", "../task", "/a", "my.yaml", "task.py", "a b", "a\nb", "$(a)"]
)
def test_what_is_no_name_of_a_task_is_refused(tasks: str) -> None:
    with pytest.raises(UserError, match="is no name of a task") as caught:
        asked(tasks)
    assert str(caught.value).isprintable()


def test_a_folder_of_tasks_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        asked(include_path=tmp_path / "none")


def test_a_harness_that_is_nowhere_is_told_before_any_work(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("lmmpress.benchmarks.harness.is_installed", lambda package: False)
    with pytest.raises(UserError, match=r"needs lm_eval .* install it by pip install 'lmmpress\[benchmarks\]'"):
        ask(checkpoint, asked_for("a", None, None, None, 1))


def test_the_interpreter_that_the_user_names_must_have_it(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none is no program; --harness-python names the Python that has lm_eval"):
        ask(checkpoint, asked_for("a", None, None, tmp_path / "none", 1))
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n", "utf-8")
    broken.chmod(0o755)
    with pytest.raises(UserError, match="broken has no lm_eval: install it there"):
        ask(checkpoint, asked_for("a", None, None, broken, 1))


def test_the_variable_names_the_interpreter(checkpoint: Path, module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMPRESS_HARNESS_PYTHON", sys.executable)
    assert ask(checkpoint, asked_for("colours", None, None, None, 1))
    monkeypatch.setenv("LMMPRESS_HARNESS_PYTHON", "/none")
    with pytest.raises(UserError, match="/none is no program; LMMPRESS_HARNESS_PYTHON names"):
        ask(checkpoint, asked_for("colours", None, None, None, 1))


def test_a_program_on_the_path_leads_to_its_interpreter(
    checkpoint: Path, module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an environment of its own, whose folder of programs is on PATH by a link."""
    programs, links = tmp_path / "env" / "bin", tmp_path / "links"
    programs.mkdir(parents=True)
    links.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', "utf-8")
    (programs / "lm-eval").write_text("#!/bin/sh\nexit 1\n", "utf-8")
    for file in programs.iterdir():
        file.chmod(0o755)
    (links / "lm-eval").symlink_to(programs / "lm-eval")
    monkeypatch.setenv("PATH", f"{links}:{os.environ['PATH']}")
    monkeypatch.setattr("lmmpress.benchmarks.harness.is_installed", lambda package: False)
    assert ask(checkpoint, asked_for("colours", None, None, None, 1))
