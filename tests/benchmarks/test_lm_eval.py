"""lm-evaluation-harness itself, on a task in local files: its numbers are those of a second implementation."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.data import COLORS, make_processor
from support.tiny import config_of, make_model, save_model, write_checkpoint

import lmmpress
from lmmpress.benchmarks import ask, asked_for
from lmmpress.files.own_types import OWN_PREFIX
from lmmpress.lmm.remote_code import make_known

CHOICE = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: rows.jsonl}
test_split: train
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: label
doc_to_choice: [红色, 绿色, 蓝色, 黄色]
target_delimiter: ""
num_fewshot: 0
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 2.0}
"""
WRITTEN = """
task: written
dataset_path: json
dataset_kwargs: {data_files: rows.jsonl}
test_split: train
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 2, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.5}
"""
QUESTIONS = [start + end for start in ("标题", "图片", "背景颜色") for end in ("?", ":", "是什么?", "新品", "包邮")]


@pytest.fixture(autouse=True)
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness fetches nothing and keeps nothing in the user's cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def loaded(checkpoint: Path) -> tuple[Any, Any]:
    make_known(json.loads((checkpoint / "config.json").read_text("utf-8")))
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    return model, transformers.AutoTokenizer.from_pretrained(checkpoint)


@torch.no_grad()
def preferred(checkpoint: Path, question: str) -> int:
    """The colour that the model finds the likeliest answer."""
    model, tokenizer = loaded(checkpoint)
    scores = []
    for choice in COLORS:
        asked, answered = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (question, choice))
        logits = model(input_ids=torch.tensor([asked + answered])).logits[0, len(asked) - 1 : -1]
        scores.append(float(logits.log_softmax(-1).gather(1, torch.tensor(answered)[:, None]).sum()))
    return scores.index(max(scores))


def write_tasks(folder: Path, checkpoint: Path) -> dict[str, float]:
    """Two tasks, each with rows that the model answers right and others, and what the model is worth on them."""
    folder.mkdir()
    (folder / "colours.yaml").write_text(CHOICE, "utf-8")
    (folder / "written.yaml").write_text(WRITTEN, "utf-8")
    answers = [answer.text for answer in lmmpress.predict(checkpoint, QUESTIONS, longest=2).answers]
    rows = [
        {
            "question": question,
            "label": (preferred(checkpoint, question) + (number % 3 == 0)) % len(COLORS),
            "answer": answer if number % 5 else "红色",
        }
        for number, (question, answer) in enumerate(zip(QUESTIONS, answers, strict=True))
    ]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "rows.jsonl").write_text(text + "\n", "utf-8")
    right = [row["answer"] == answer for row, answer in zip(rows, answers, strict=True)]
    return {"colours": 2 / 3, "written": sum(right) / len(right)}


def test_its_numbers_are_right(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "model", "text-glm")
    expected = write_tasks(tmp_path / "tasks", checkpoint)
    found = ask(checkpoint, asked_for("colours,written", tmp_path / "tasks", None, None, 4))
    rows = len(QUESTIONS)
    for number in found:
        assert number.value == pytest.approx(expected[number.task])
        assert number.stderr == pytest.approx((number.value * (1 - number.value) / (rows - 1)) ** 0.5)
    assert [(one.task, one.metric, one.task_version, one.samples, one.few_shot) for one in found] == [
        ("colours", "acc", "2.0", rows, 0),
        ("written", "exact_match", "1.5", rows, 0),
    ]
    assert {one.harness for one in found} == {"lm_eval"}


def test_it_measures_what_needs_our_modelling_file(tmp_path: Path) -> None:
    """Heads of OPT with a width of their own: no code of the checkpoint runs, lmmpress's own does."""
    tokenizer = make_processor("text-glm")
    original = tmp_path / "original"
    save_model(make_model(config_of("text-opt", len(tokenizer))), original)
    tokenizer.save_pretrained(original)
    data = tmp_path / "data"
    data.mkdir()
    row = {"question": "标题", "answer": "红色", "task": "color", "split": "score"}
    (data / "metadata.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    checkpoint = tmp_path / "pruned"
    lmmpress.prune(original, checkpoint, axis="attention", remove=16, data=data)
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    assert config["model_type"] == f"{OWN_PREFIX}opt"
    (checkpoint / "modeling_lmmpress.py").write_text("raise SystemExit('code of a stranger')", "utf-8")

    expected = write_tasks(tmp_path / "tasks", checkpoint)
    (number,) = ask(checkpoint, asked_for("written", tmp_path / "tasks", None, None, 1))
    assert number.value == pytest.approx(expected["written"])
    assert sys.modules.get("lm_eval") is None, "it runs in a process of its own"
