"""An axis that another package adds, in one file, works wherever the four do.

`tail/tail_axis.py` is that file: FFN units that go from the last, without scores, in groups of its own names. Its
component is in a module of its own, as Kubeflow's SDK is no part of the library.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.cli import run
from support.engines import (
    GRANULARITIES,
    assert_same,
    by_kubeflows_runner,
    by_the_tasks_of_a_pipeline,
    by_this_process,
)
from support.paths import ROOT
from support.tiny import config_of, make_model, save_model

from lmmpress.axes import Axis, axes, axis_named, register, registry
from lmmpress.engine.compression import compress
from lmmpress.errors import UserError
from lmmpress.kubeflow.compile import Granularity
from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint
from lmmpress.lmm.probe_inputs import probe_inputs, probe_logits
from lmmpress.lmm.read_anatomy import anatomy_after, anatomy_of
from lmmpress.lmm.tensor_cut import masked
from lmmpress.plan import parse_plan
from lmmpress.printing.sheet import Grid
from lmmpress.pruning.choose import choose
from lmmpress.pruning.importance import other_axes
from lmmpress.pruning.planned import Sizes
from lmmpress.pruning.sizes import predict
from lmmpress.reporting.page import render
from lmmpress.tasks.parameters import arguments_of

PACKAGE = Path(__file__).parent / "tail"
TWICE = [
    {"axis": "tail", "step": 16, "max": 16},
    {"axis": "ffn", "tower": "vision", "step": 16, "max": 16},
    {"axis": "tail", "step": 8, "max": 8},
]
ENTRY = "[lmmpress.axes]\ntail = tail_axis:AXIS\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is installed, for this process and those that it starts."""
    known = axes()  # before this process could find the package by itself
    about = tmp_path / "installed" / "tail_axis-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tail-axis\nVersion: 1.0\n", "utf-8")
    (about / "entry_points.txt").write_text(ENTRY, "utf-8")
    places = [str(about.parent), str(PACKAGE)]
    monkeypatch.setenv("PYTHONPATH", ":".join(places))
    for place in places:
        monkeypatch.syspath_prepend(place)
    monkeypatch.setattr(registry, "_axes", {axis.name: axis for axis in known})
    from tail_axis import AXIS

    register(AXIS)


@pytest.fixture
def raw(raw_plan: dict[str, Any]) -> dict[str, Any]:
    """The axis, then one that shares its width, so that the second finds what the first has left."""
    return raw_plan | {"stages": {"tail": {"step": 16, "max": 24}, "ffn": {"step": 16, "max": 16}}}


pytestmark = pytest.mark.usefixtures("installed")


@pytest.mark.usefixtures("trusting")
def test_every_engine_comes_to_the_same(
    raw: dict[str, Any], lineage_in: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = by_this_process(raw, tmp_path / "one", lineage_in)
    assert [(step.stage, step.index, step.removed) for step in one.steps] == [
        ("tail", 0, 16),
        ("tail", 1, 8),
        ("ffn", 0, 16),
    ]
    assert [step.score_reliability is None for step in one.steps] == [True, True, False]
    for granularity in GRANULARITIES:
        folder = tmp_path / granularity
        found, pipeline = by_the_tasks_of_a_pipeline(raw, granularity, folder, lineage_in, monkeypatch)
        assert_same(raw, found, folder, one, tmp_path / "one")
        if granularity == "step":
            assert [name for name in pipeline.ran if "prune" in name or "importance" in name] == [
                "tail_prune tail 0",
                "tail_prune tail 1",
                "importance ffn 0",
                "ffn_prune ffn 0",
            ]
    page = render(one, parse_plan(raw))
    assert "2 tail language" in page
    assert read_checkpoint(tmp_path / "one" / "compressed").towers["language"].axes["tail"].width == 24


@pytest.mark.long
@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_processes_find_the_axis_by_its_entry_point(
    granularity: Granularity, raw: dict[str, Any], lineage_in: Callable[[Path], str], tmp_path: Path
) -> None:
    """In a plan whose stages are a list: one has a tower of its own, and by stage one comes twice. By step, where each
    task imports torch, two stages make every component a process; test_repeated_stage.py makes more of them here."""
    stages = TWICE if granularity == "stage" else TWICE[:2]
    raw |= {"stages": stages}
    one = by_this_process(raw, tmp_path / "one", lineage_in)
    decided = [("tail", "language"), ("ffn", "vision"), ("tail-2", "language")]
    assert [(step.stage, step.tower) for step in one.steps] == decided[: len(stages)]
    found = by_kubeflows_runner(raw, granularity, tmp_path / "run")
    assert_same(raw, found, tmp_path / "run", one, tmp_path / "one")


def test_plan_prune_and_inspect_know_it(
    raw: dict[str, Any], make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(raw), "utf-8")
    sizes = json.loads(run("plan", plan, "--json"))
    assert [(size["stage"], size["widths"]["language.tail"]) for size in sizes] == [
        ("original", 64),
        ("tail", 48),
        ("tail", 40),
        ("ffn", 24),
    ]
    (table,) = Sizes(tuple(predict(read_checkpoint(Path(raw["model"])), parse_plan(raw)))).shown()
    assert isinstance(table, Grid)
    assert table.head[3:8] == ("block", "ffn", "attention", "io", "tail")
    assert [row[0] for row in table.rows] == ["original", "tail 1", "tail 2", "ffn 1"]
    help_text = subprocess.run(
        [sys.executable, "-m", "lmmpress.cli", "prune", "--help"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout
    words = " ".join(help_text.replace("│", " ").split())
    assert "tail: the hidden width of every FFN: the last units go." in words
    assert "a cut along block or tail needs none" in words
    cut = tmp_path / "cut"
    run("prune", make_checkpoint("llama"), "--axis", "tail", "--remove", 16, "-o", cut)
    told = json.loads(run("inspect", cut, "--json"))
    assert told["history"][0]["axis"] == "tail"
    assert told["widths"]["language"] | {"tail": 48, "ffn": 48} == told["widths"]["language"]


def test_amounts_of_both_axes_are_held_against_the_width_that_they_share(raw: dict[str, Any]) -> None:
    anatomy = read_checkpoint(Path(raw["model"]))
    message = r"stage ffn, after the steps before it: ffn of the language tower is 40 wide: 48 cannot be removed"
    with pytest.raises(UserError, match=message):
        predict(anatomy, parse_plan(raw, ("stages.ffn.max=48",)))


def test_a_pipeline_has_its_parameters(raw: dict[str, Any]) -> None:
    given = arguments_of(parse_plan(raw | {"store": "s3://b/s"}), "name")
    assert {key: given[key] for key in given if key.startswith("tail")} == {"tail_step": 16, "tail_max": 24}


@pytest.mark.parametrize("name", ["llama", "t5", "opt", "glm", "blip2-qwen2"])
def test_a_cut_is_exact_in_every_family(name: str, tmp_path: Path) -> None:
    save_model(make_model(config_of(name)), tmp_path / "source")
    anatomy = read_checkpoint(tmp_path / "source")
    cut = choose(anatomy, "language", "tail", 8, None)
    assert all(kept == list(range(len(kept))) for kept in cut.keep.values())
    apply_cuts(tmp_path / "source", anatomy, [cut], tmp_path / "cut")
    uncut, model = load_model(tmp_path / "source"), load_model(tmp_path / "cut")
    inputs = probe_inputs(uncut)
    uncut.load_state_dict(masked(anatomy, cut.keep, uncut.state_dict()))
    assert torch.allclose(probe_logits(model, inputs), probe_logits(uncut, inputs), atol=1e-5, rtol=1e-4)


def test_cuts_along_both_axes_and_of_blocks_compose(tmp_path: Path) -> None:
    """Made at once, as `lmmpress prune --cuts` does, they leave what they leave in turn."""
    save_model(make_model(config_of("llama")), tmp_path / "0")
    first = anatomy = read_checkpoint(tmp_path / "0")
    cuts, generator = [], torch.Generator().manual_seed(0)
    for number, (axis, amount) in enumerate((("tail", 8), ("ffn", 8), ("block", 1), ("tail", 16), ("ffn", 4))):
        scores = {group.name: torch.rand(group.size, generator=generator) for group in anatomy.groups().values()}
        cuts.append(choose(anatomy, "language", axis, amount, scores))
        apply_cuts(tmp_path / str(number), anatomy, [cuts[-1]], tmp_path / str(number + 1))
        anatomy = anatomy_after(anatomy, cuts[-1])
    apply_cuts(tmp_path / "0", first, cuts, tmp_path / "once")
    in_turn, once = (load_model(tmp_path / name).state_dict() for name in (str(len(cuts)), "once"))
    assert in_turn.keys() == once.keys()
    assert all(torch.equal(in_turn[name], once[name]) for name in once)


def test_an_axis_that_nobody_uses_changes_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither which groups are scored nor under which name: a run begun without the package goes on with it."""
    anatomy = anatomy_of(config_of("llama"))
    always = [axis.name for axis in axes() if axis.always_scored]
    assert not [name for name in anatomy.groups(always) if ".tail." in name]
    assert other_axes(["tail", "ffn"]) == []
    monkeypatch.setitem(registry._axes, "tail", replace(axis_named("tail"), needs_scores=True))
    assert other_axes(["tail", "ffn"]) == ["tail"]
    assert other_axes(["ffn"]) == []


@pytest.mark.usefixtures("trusting")
def test_an_axis_of_another_package_may_go_by_scores(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is scored beside the others, for the plan that uses it; the dimensions of its groups are those of `ffn`."""
    monkeypatch.setitem(registry._axes, "tail", replace(axis_named("tail"), needs_scores=True))
    removed = {"step": 16, "max": 16}
    by_tail, by_ffn = (
        compress(parse_plan(raw | {"stages": {axis: removed}}), tmp_path / axis).steps[0] for axis in ("tail", "ffn")
    )
    assert by_tail.score_reliability is not None
    assert by_ffn.score_reliability is not None
    names = {axis: scored_in(tmp_path / axis / "store") for axis in ("tail", "ffn")}
    assert names["tail"] != names["ffn"], "its scores have a name of their own"
    cut_checkpoints = [read_checkpoint(tmp_path / axis / "compressed") for axis in ("tail", "ffn")]
    assert cut_checkpoints[0].shapes == cut_checkpoints[1].shapes
    assert by_tail.accuracy_pruned == by_ffn.accuracy_pruned, "the same dimensions went, by the same scores"


def scored_in(store: Path) -> set[str]:
    return {path.name for path in (store / "records").glob("importance-*.json")}


def test_the_documented_example_is_this_axis() -> None:
    page = (ROOT / "docs" / "adding-an-axis.md").read_text("utf-8")
    for module in ("tail_axis", "tail_component"):
        assert (PACKAGE / f"{module}.py").read_text("utf-8") in page
    assert page.count("| `") == len(fields(Axis))
    assert all(f"| `{field.name}` |" in page for field in fields(Axis))
