"""`lmmpress data`: what it prints, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import fail, refused, run


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A good row, one with a fault, and a good row."""
    folder = tmp_path / "d"
    folder.mkdir()
    rows = [{"prompt": "q", "answer": "a"}, {"prompt": "r"}, {"prompt": "s", "answer": "b"}]
    text = "".join(json.dumps(row | {"split": "test"}) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text, "utf-8")
    return folder


def test_it_tells_what_is_there_and_every_fault_by_row(spoilt: Path) -> None:
    shown = run("data", spoilt, "--column", "question=prompt", code=2)
    assert "JSON files, 2 rows from 1 file" in shown
    assert "1 fault:" in shown
    assert "rows.jsonl, line 2" in shown


def test_json_has_the_same(spoilt: Path) -> None:
    found = json.loads(run("data", spoilt, "--column", "question=prompt", "--json", code=2))
    assert found["counts"] == {"rows": 2, "faults": 1}
    assert found["faults"][0]["place"] == "rows.jsonl, line 2"


def test_a_column_may_be_one_text_for_all_rows(spoilt: Path) -> None:
    columns = ("--column", "question=prompt", "--column", "answer={text: fixed}")
    assert json.loads(run("data", spoilt, *columns, "--json"))["labels"][0]["most_frequent"] == "fixed"


def test_fix_writes_a_copy_without_faults(spoilt: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    assert "2 rows and 0 images written" in run("data", spoilt, "--column", "question=prompt", "--fix", clean, code=2)
    assert "no faults" in run("data", clean)


def test_warnings_count_with_strict_alone(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "a", "split": split} for split in ("train", "test")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert "share rows" in " ".join(run("data", tmp_path).split())
    run("data", tmp_path, "--strict", code=2)


def test_the_program_ends_with_2_for_faults_and_0_without(spoilt: Path) -> None:
    command = [sys.executable, "-m", "lmmpress.cli", "data", str(spoilt)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr.strip()) == (2, "")
    assert "3 faults" in done.stdout
    command += ["--column", "question=prompt", "--unlabelled"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[{", "utf-8")
    assert "rows.json, row 1: not JSON" in fail("data", tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--column", "prompt"], "write it as question=prompt"),
        (["--column", "qestion=prompt"], "unknown column; did you mean 'question'?"),
        (["--column", "question=a", "--column", "question=b"], "--column question is given twice"),
        (["--column", "question={text: "], "--column question"),
        (["--split", "tst"], "there is no split 'tst'"),
        (["--turns", "all"], "--turns and --template need --checkpoint"),
        (["--checkpoint", "x", "--template", "no"], "template: input should be 'auto', 'never' or 'always'"),
    ],
)
def test_wrong_options_are_refused_in_one_line(spoilt: Path, options: list[str], message: str) -> None:
    assert message in refused("data", spoilt, *options)
