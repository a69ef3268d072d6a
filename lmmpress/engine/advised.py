"""Advice as data: as tables for people, as JSON, and as the file of a plan."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lmmpress.engine.expected_time import Expected
from lmmpress.engine.sensitivity import Sensitivity
from lmmpress.engine.suggestion import KEPT, SuggestedStage, kept_of
from lmmpress.errors import UserError
from lmmpress.host.whole_file import write_whole
from lmmpress.plan import ADDRESSES, Plan, parse_plan
from lmmpress.printing.numbers import in_time
from lmmpress.printing.sheet import Grid, Part, Shown
from lmmpress.stages import stage_names

_WIDTH = 100_000


@dataclass(frozen=True, repr=False)
class Advice(Shown):
    """What cuts of a model lose, and the plan that this suggests.

    `ratio` says how many times smaller the towers become if the gate accepts every step. `plan` is the suggested plan
    as a mapping, and `written` the file that holds it, if there is one.
    """

    found: Sensitivity
    stages: tuple[SuggestedStage, ...]
    time: Expected
    ratio: float
    plan: dict[str, Any]
    written: Path | None = None

    def __repr__(self) -> str:
        return f"<advice: {', '.join(stage.way.name for stage in self.stages)}; {self.time.steps} steps>"

    @property
    def learning_rate(self) -> float | str | None:
        """The learning rate of the suggested plan; None if it does not distil."""
        rate: float | str | None = self.plan.get("distillation", {}).get("learning_rate")
        return rate

    @property
    def learning(self) -> str:
        """The learning rate with its reason."""
        if self.learning_rate is None:
            return "no learning rate, since the plan distils for no epochs"
        return "learning rate auto: each step finds its own by short trials, since each begins from another model"

    @property
    def outcome(self) -> str:
        """What the plan comes to, in a line."""
        gpus = "" if self.time.gpu_hours is None else f", {self.time.gpu_hours:.2f} GPU hours"
        return (
            f"estimated, if the gate accepts every step: {self.time.steps} steps, towers {self.ratio:.1f} times "
            f"smaller, {in_time(self.time.seconds)}{gpus} on this machine"
        )

    @property
    def rule(self) -> str:
        """How the steps were chosen, in a line."""
        return (
            f"skill is what the original ({self.found.accuracy:.4f}) is better than a model without any "
            f"({self.found.floor:.4f}); a step is the largest measured cut that keeps {100 * KEPT:.0f} % of it before "
            "distillation"
        )

    def shown(self) -> tuple[Part, ...]:
        """A row for each measured cut, then one for each suggested stage, with its reason below."""
        cuts = Grid(
            ("axis", "tower", "removes", "of", "parameters", "accuracy", "lost", "95 %", "skill kept"),
            tuple(
                (
                    one.way.axis,
                    one.way.tower,
                    str(one.removed),
                    str(one.way.width),
                    f"-{100 * one.saved:.1f} %",
                    f"{one.accuracy:.4f}",
                    f"{one.drop.value:.4f}",
                    f"{one.drop.interval.low:.4f} to {one.drop.interval.high:.4f}",
                    "unknown" if (kept := kept_of(self.found, one)) is None else f"{100 * kept:.0f} %",
                )
                for one in self.found.losses
            ),
        )
        stages = Grid(
            ("stage", "axis", "tower", "step", "max", "steps"),
            tuple(
                (str(number), one.way.axis, one.way.tower, str(one.step), str(one.most), str(one.steps))
                for number, one in enumerate(self.stages, start=1)
            ),
        )
        reasons = tuple(one.reason for one in self.stages)
        written = () if self.written is None else (f"plan: {self.written}",)
        return (cuts, self.rule, stages, *reasons, self.learning, self.outcome, *written)

    def as_dict(self) -> dict[str, Any]:
        """What `lmmpress advise --json` prints."""
        return {
            "accuracy": self.found.accuracy,
            "floor": _number(self.found.floor),
            "cuts": [
                {
                    "axis": one.way.axis,
                    "tower": one.way.tower,
                    "removed": one.removed,
                    "width": one.way.width,
                    "saved": one.saved,
                    "accuracy": one.accuracy,
                    "drop": one.drop.model_dump(mode="json"),
                    "kept": kept_of(self.found, one),
                    "seconds": one.seconds,
                }
                for one in self.found.losses
            ],
            "stages": [
                {
                    "axis": one.way.axis,
                    "tower": one.way.tower,
                    "step": one.step,
                    "max": one.most,
                    "steps": one.steps,
                    "cost": _number(one.cost),
                    "reason": one.reason,
                }
                for one in self.stages
            ],
            "learning_rate": {"value": self.learning_rate, "reason": self.learning},
            "estimated": vars(self.time) | {"ratio": self.ratio},
            "plan": self.plan,
            "written": None if self.written is None else str(self.written),
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def plan_of(plan: Plan, stages: Sequence[SuggestedStage], model: str | None = None) -> dict[str, Any]:
    """The mapping of a plan with other stages, of which each step finds its own learning rate.

    What belongs to the old stages goes: a warm start, and approvals after stages that there are no more. Relative paths
    are from the current directory, and become absolute.
    """
    raw = plan.model_dump(mode="json", exclude_unset=True)
    raw |= {} if model is None else {"model": model}
    for key in (*ADDRESSES, "start_from"):
        if isinstance(raw.get(key), str) and _is_path(raw[key]):
            raw[key] = str(Path(raw[key]).absolute())
    for key in ("schedule", "start_from", "jumps"):
        raw.pop(key, None)
    entries = [
        {"axis": one.way.axis}
        | ({} if [one.way.tower] == list(plan.towers) else {"tower": one.way.tower})
        | {"step": one.step, "max": one.most}
        for one in stages
    ]
    if raw.get("pipeline", {}).get("approve"):
        names = stage_names(one.way.axis for one in stages)
        raw["pipeline"]["approve"] = [name for name in raw["pipeline"]["approve"] if name in names]
    if plan.distillation.epochs:
        raw["distillation"] = raw.get("distillation", {}) | {"learning_rate": "auto"}
    else:
        raw.get("distillation", {}).pop("learning_rate", None)
    return raw | {"stages": entries}


def _is_path(address: str) -> bool:
    return not ("://" in address or address.startswith("models:/"))


def plan_text(advice: Advice) -> str:
    """The plan as YAML, with the reason of each stage as a comment above it."""
    rest = {key: value for key, value in advice.plan.items() if key != "stages"}
    lines = [
        "# Suggested by lmmpress advise.",
        f"# {advice.rule[0].upper()}{advice.rule[1:]}.",
        f"# {advice.outcome[0].upper()}{advice.outcome[1:]}.",
        f"# {advice.learning[0].upper()}{advice.learning[1:]}.",
        _yaml(rest).rstrip("\n"),
        "stages:",
    ]
    for stage, entry in zip(advice.stages, advice.plan["stages"], strict=True):
        lines += [f"# {stage.reason}", f"- {_yaml(entry, flow=True).strip()}"]
    return "\n".join(lines) + "\n"


def _yaml(value: Any, flow: bool = False) -> str:
    return str(
        yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=_WIDTH, default_flow_style=flow or None)
    )


def check_new(path: Path) -> None:
    """Raise UserError if no file of that name can be written, or one exists."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists and is not changed; choose another file with -o")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it, or choose another file with -o")


def write_plan(advice: Advice, path: Path) -> None:
    """Write the plan as a whole, after checking that it is one. Raises UserError if the file exists."""
    parse_plan(advice.plan)
    check_new(path)
    write_whole(path, plan_text(advice))
