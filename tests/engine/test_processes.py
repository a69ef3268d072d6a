"""Scoring and judging in several processes, which share the rows (`importance.processes`, `evaluation.processes`)."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.certain import certain
from support.forks import Forks
from support.jobs import done_by, job_of

from lmmpress.engine.materials import Materials
from lmmpress.engine.measured import values_of
from lmmpress.engine.parts.evaluate import evaluate
from lmmpress.engine.parts.importance import importance
from lmmpress.engine.parts.judging import worth_of
from lmmpress.engine.parts.prune import prune
from lmmpress.engine.parts.scoring import scores_of
from lmmpress.plan import parse_plan
from lmmpress.progress import Event, Work, listening
from lmmpress.store import open_store


@pytest.fixture
def raw(raw_plan: dict[str, Any], taught: Path, tmp_path: Path) -> dict[str, Any]:
    return raw_plan | {"model": str(taught), "store": str(tmp_path / "store")}


def materials_of(raw: dict[str, Any]) -> Materials:
    plan = parse_plan(raw)
    store = open_store(certain(plan.store))
    return Materials(plan, store, store.add_checkpoint(Path(plan.model)))


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"accumulation": "dataset", "passes": 2}, 2),
        ({"accumulation": "batch"}, 2),
        ({"accumulation": "sample"}, 2),
        ({"accumulation": "dataset", "batch_size": 8}, 2),  # a half of one batch: the second process has none
    ],
)
def test_processes_find_the_scores_of_one(
    raw: dict[str, Any], forks: Forks, tmp_path: Path, settings: dict[str, Any], count: int
) -> None:
    materials = materials_of(raw | {"importance": raw["importance"] | settings})
    alone = scores_of(materials, materials.original, 5)
    job = job_of(materials, materials.original, tmp_path, part="importance", processes=count, seed=5)
    found = json.loads(done_by(forks, job))
    scores = load_file(job.tensors)
    assert scores.keys() == alone.scores.keys()
    for name, value in alone.scores.items():
        torch.testing.assert_close(scores[name], value, rtol=1e-3, atol=1e-3 * float(value.max()), msg=name)
    assert found["reliability"] == pytest.approx(certain(alone.reliability), abs=0.05)


@pytest.mark.parametrize("accumulation", ["batch", "dataset"])
def test_a_process_with_less_memory_scores_fewer_rows_at_once(
    raw: dict[str, Any], forks: Forks, tmp_path: Path, accumulation: str
) -> None:
    """It scores its share anew while the other one waits for its sums."""
    settings = {"accumulation": accumulation, "batch_size": 4, "passes": 1}
    materials = materials_of(raw | {"importance": raw["importance"] | settings})
    alone = scores_of(materials, materials.original, 5)
    job = job_of(materials, materials.original, tmp_path, part="importance", processes=2, seed=5)
    found = json.loads(done_by(forks, job, rows=2))
    assert found["at_once"]["importance"] == found["lowered"]["importance"] == 2
    for name, value in load_file(job.tensors).items():
        torch.testing.assert_close(value, alone.scores[name], rtol=1e-3, atol=1e-3 * float(value.max()), msg=name)


def test_a_process_with_less_memory_asks_fewer_rows_at_once(raw: dict[str, Any], forks: Forks, tmp_path: Path) -> None:
    materials = materials_of(raw | {"evaluation": raw["evaluation"] | {"batch_size": 4}})
    checkpoint = prune(materials, materials.original, "language", "block", 3, None).checkpoint
    job = job_of(materials, checkpoint, tmp_path, part="evaluate", processes=2, role="gate")
    found = json.loads(done_by(forks, job, rows=2))
    assert found["at_once"]["evaluate"] == found["lowered"]["evaluate"] == 2
    np.testing.assert_array_equal(values_of(found), worth_of(materials, checkpoint, "gate"))


@pytest.fixture
def of_two_tasks(raw: dict[str, Any], data: Path, tmp_path: Path) -> dict[str, Any]:
    """Rows of two tasks, of which some have no answers."""
    folder = tmp_path / "rows"
    shutil.copytree(data, folder)
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text("utf-8").splitlines()]
    for number, row in enumerate(rows):
        row["task"] = "caption" if number % 2 else "open"
        if row["task"] == "open" and row["split"] in ("gate", "test"):
            del row["answer"]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return raw | {"data": str(folder)}


@pytest.mark.parametrize(
    "metrics", [None, {"default": "rouge_l", "open": "agreement"}, {"default": "token_accuracy", "open": "kl"}]
)
def test_processes_find_what_rows_are_worth_to_one(
    raw: dict[str, Any], of_two_tasks: dict[str, Any], forks: Forks, tmp_path: Path, metrics: dict[str, str] | None
) -> None:
    materials = materials_of(raw if metrics is None else of_two_tasks | {"metrics": metrics})
    checkpoint = prune(materials, materials.original, "language", "block", 3, None).checkpoint
    alone = worth_of(materials, checkpoint, "gate")
    assert len(set(alone.tolist())) > 1, "no two rows are worth the same otherwise"
    job = job_of(materials, checkpoint, tmp_path, part="evaluate", processes=3, role="gate")
    found = values_of(json.loads(done_by(forks, job)))
    assert found.dtype == alone.dtype
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_a_plan_says_how_many_processes_score_and_judge(raw: dict[str, Any], tmp_path: Path) -> None:
    """The names of the results stay, so that other numbers of processes find them."""
    alone = materials_of(raw | {"store": str(tmp_path / "alone")})
    two = {name: raw[name] | {"processes": 2} for name in ("importance", "evaluation")}
    together = materials_of(raw | two)
    heard: list[Event] = []
    with listening(heard.append):
        scored, judged = importance(together, together.original), evaluate(together, together.original, "gate")
    assert {one.label for one in heard if isinstance(one, Work) and one.over} >= {"importance"}
    expected = importance(alone, alone.original)
    assert scored.record.name == expected.record.name
    assert judged.record.name == evaluate(alone, alone.original, "gate").record.name
    for name, value in expected.scored.scores.items():
        torch.testing.assert_close(scored.scored.scores[name], value, rtol=1e-3, atol=1e-3 * float(value.max()))
    np.testing.assert_array_equal(judged.values, evaluate(alone, alone.original, "gate").values)
