"""The two forms of `make reproduce`: what a preset is measured on, in how many seeds, and what the quick form leaves
out."""

import json
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.read_anatomy import anatomy_of, read_config
from lmmpress.plan import parse_plan
from lmmpress.presets import names, preset
from lmmpress.pruning.amounts import with_numbers
from lmmpress.pruning.sizes import Size, predict
from lmmpress.store import open_checkpoint
from reproduce.outcome import WATTS

PICTURES = {"score": 40, "distill": 178, "gate": 60, "test": 100}
"""How many pictures of each split the quick form uses, each with all its rows."""
QUICK = ("importance.rows=100", "distillation.batch_size=16")
"""Small batches, so that few rows make some updates."""
KEPT = "tolerance={alpha: 0.99, on_violation: keep, allow_zero: true}"
"""Every step is kept, whatever it loses, so that all models that are compared have one size."""
GRADUAL, AT_ONCE = "{step: 25%, max: 87.5%}", "{step: 87.5%, max: 87.5%}"
"""How far one level alone is cut: to an eighth, as Table 3's sizes say of AntGMM."""
AXES = ("block", "ffn", "attention", "io")


class Form(BaseModel):
    """A preset in one form. `rows` of `all_rows` rows of the distill split are distilled on, in `epochs` a step;
    `stages` are those of the preset, `planned` how many steps they make, `planned_alone` how many a level alone has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str
    quick: bool
    seeds: tuple[int, ...]
    rows: int
    all_rows: int
    epochs: int
    alpha: float
    kl: str
    criterion: str
    accumulation: str
    planned: int
    planned_alone: dict[str, int]
    stages: dict[str, dict[str, Any]]

    @property
    def name(self) -> str:
        """The name of what is kept of it."""
        return f"{self.preset}-quick" if self.quick else self.preset

    @property
    def seeds_in_words(self) -> str:
        """How many seeds there are."""
        return "one seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that all experiments have: the closing measurements read the gate's rows, not those of the test
        split, and take no time for speed."""
        shared = (
            f"distillation.rows={self.rows}",
            "splits.test=gate",
            "evaluation.speed=false",
            f"evaluation.watts_per_core={WATTS:g}",
        )
        return (*shared, *QUICK) if self.quick else shared


def form_of(name: str, quick: bool, seeds: int | None = None) -> Form | None:
    """The form of a preset, with three seeds if no number is asked for, one in the quick form; None if there is no such
    preset. The sample's data is generated at first use."""
    if name not in names():
        return None
    raw = preset(name)
    plan = parse_plan(raw)
    if not plan.is_mapping:
        raise SystemExit(f"preset {name}: its stages are a list; the experiments need a mapping from axes to amounts")
    found = Counter(_split_of(line) for line in _lines(Path(plan.data)))
    pictures = _pictures(Path(plan.data)) if quick else {}
    every = len(pictures["distill"]) if quick else found["distill"]
    rows = min(plan.distillation.rows or every, every)
    if quick:
        rows = every * (plan.distillation.rows or found["distill"]) // found["distill"]
    return Form(
        preset=name,
        quick=quick,
        seeds=tuple(range(seeds or (1 if quick else 3))),
        rows=rows,
        all_rows=every,
        epochs=plan.distillation.epochs,
        alpha=plan.tolerance.alpha,
        kl=plan.distillation.kl,
        criterion=plan.importance.criterion,
        accumulation=plan.importance.accumulation,
        planned=len(sizes_of(name)) - 1,
        planned_alone={axis: len(sizes_of(name, (f"stages={{{axis}: {GRADUAL}}}",))) - 1 for axis in AXES},
        stages={stage.axis: stage.amounts() for stage in plan.stages},
    )


def sizes_of(name: str, settings: tuple[str, ...] = ()) -> list[Size]:
    """The sizes that the steps of a preset's plan with these settings lead to, the uncut model first."""
    plan = parse_plan(preset(name, with_data=False), settings)
    anatomy = _anatomy(plan.model)
    return predict(anatomy, with_numbers(plan, anatomy))


@cache
def _anatomy(model: str) -> Anatomy:
    return anatomy_of(read_config(open_checkpoint(model)))


def small_copy(data: Path, folder: Path) -> Path:
    """A copy of the preset's data with a few pictures of each split, spread evenly over it; made once."""
    if folder.exists():
        return folder
    draft = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    lines = [line for chosen in _pictures(data).values() for line in chosen]
    for name in dict.fromkeys(json.loads(line)["file_name"] for line in lines):
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / name, draft / name)
    (draft / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    draft.rename(folder)
    return folder


def raw_plan(experiment_preset: str, data: Path | None, store: Path) -> dict[str, Any]:
    """The raw plan of a preset in the shared store; `data` replaces the preset's."""
    raw = preset(experiment_preset) | {"store": str(store)}
    return raw | ({"data": str(data)} if data else {})


def _lines(data: Path) -> list[str]:
    return (data / "metadata.jsonl").read_text("utf-8").splitlines()


def _split_of(line: str) -> str:
    return str(json.loads(line)["split"])


def _pictures(data: Path) -> dict[str, list[str]]:
    """The lines of the small copy, by split."""
    by_split: dict[str, dict[str, list[str]]] = {}
    for line in _lines(data):
        row = json.loads(line)
        by_split.setdefault(row["split"], {}).setdefault(row["file_name"], []).append(line)
    found = {}
    for split, pictures in by_split.items():
        every = list(pictures)
        count = min(PICTURES.get(split, 0), len(every))
        found[split] = [line for number in range(count) for line in pictures[every[number * len(every) // count]]]
    return found
