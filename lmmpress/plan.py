"""The plan: everything a user asks of a run, checked when it is read.

A plan is YAML. Unknown keys are refused with the nearest known one, so that a misspelt setting never silently keeps
its default. Steps and maxima are totals: `attention` counts over all heads of a block, the others as they stand.
"""

import difflib
import hashlib
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmmpress.errors import UserError


class Axis(StrEnum):
    """What a stage makes smaller, in the paper's order (section 3.3)."""

    block = "block"
    ffn = "ffn"
    attention = "attention"
    io = "io"


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Splits(Settings):
    """The names that the data gives to the four disjoint sets of rows a run needs."""

    score: str = "score"
    distill: str = "distill"
    gate: str = "gate"
    test: str = "test"


class Tolerance(Settings):
    """When a step is accepted (Algorithm 1): its accuracy drop is below `alpha`.

    `reference` names what the drop is taken from: the `stage`'s own start, as printed, or the `original`.
    `on_violation` says what becomes of the step that breaks alpha: `rollback` to the last accepted checkpoint, or
    `keep` it, as printed; the stage ends either way. With a `confidence` the gate compares the upper end of that
    two-sided paired interval of the drop instead of the drop itself. `split` is the split the gate measures on; the
    paper measures on the distillation set. A run whose original answers no row of it right is refused, since its gate
    would accept everything; `allow_zero` lets it go on, which is of use for tests on random models only.
    """

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.15
    reference: Literal["stage", "original"] = "stage"
    on_violation: Literal["rollback", "keep"] = "rollback"
    confidence: Literal["none"] | Annotated[float, Field(gt=0, lt=1)] = "none"
    split: Literal["gate", "distill"] = "gate"
    allow_zero: bool = False


class Importance(Settings):
    """How dimensions are scored (Eq. 1-4).

    `accumulation` says where the absolute value of Eq. 1 is taken: of the gradient of the whole data set, as printed,
    of each batch's, or of each sample's. `owned` says which parameters a dimension sums: the weight matrices of
    Eq. 2-4, or `all` (biases, norms and embeddings too). `magnitude` and `random` are controls that use no data.
    `passes` splits a data-set gradient over several passes, each holding only its share in memory.
    """

    criterion: Literal["taylor", "magnitude", "random"] = "taylor"
    accumulation: Literal["dataset", "batch", "sample"] = "dataset"
    owned: Literal["equations", "all"] = "equations"
    batch_size: Annotated[int, Field(gt=0)] = 32
    passes: Annotated[int, Field(gt=0)] = 1
    rows: Annotated[int, Field(gt=0)] | None = None


class Stage(Settings):
    """How much one step removes, and how much the whole stage may."""

    step: Annotated[int, Field(gt=0)]
    max: Annotated[int, Field(gt=0)]

    def amounts(self) -> list[int]:
        """What each step of the stage removes: `step` each, and a smaller last one where it does not divide `max`."""
        whole, rest = divmod(self.max, self.step)
        return [self.step] * whole + ([rest] if rest else [])


class Distillation(Settings):
    """How a pruned model learns from the teacher after every step (Eq. 5, section 4.2).

    `kl` is `reverse` as Eq. 5 prints it, KL(student, teacher), or `forward`. `pairwise` is the hinge of Eq. 5, the
    `margin` of the correct token over the strongest wrong one, or `none`; `gamma` weighs it. `hard_labels` is the
    weight of the cross-entropy on the answers, as a supplement. `batch_size` rows make one update, in portions of
    `micro_batch_size`; `rows` of the split are used, evenly taken, or all (Fig. 7). `processes` starts that many, one
    per GPU where there are GPUs. `caches` computes the teacher's hidden states and, while they cannot change, the
    visual features once per run instead of in every step.
    """

    epochs: Annotated[int, Field(ge=0)] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 3.0e-5
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Annotated[int, Field(gt=0)] = 1024
    micro_batch_size: Annotated[int, Field(gt=0)] = 64
    rows: Annotated[int, Field(gt=0)] | None = None
    kl: Literal["reverse", "forward"] = "reverse"
    gamma: Annotated[float, Field(ge=0)] = 1.0
    pairwise: Literal["eq5", "margin", "none"] = "eq5"
    hard_labels: Annotated[float, Field(ge=0)] = 0.0
    processes: Annotated[int, Field(gt=0)] = 1
    caches: bool = True


class Evaluation(Settings):
    """How speed is measured: `samples` rows at `batch_size`, and `latency_samples` single ones."""

    batch_size: Annotated[int, Field(gt=0)] = 32
    samples: Annotated[int, Field(gt=0)] = 128
    latency_samples: Annotated[int, Field(gt=0)] = 32


class Plan(Settings):
    """What the user asks for. See docs/plan.md for every key.

    `data_checks` says when rows are checked: `all` of every split before the first step, or each split only when it is
    first used (`lazy`).
    """

    model: str
    data: str
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    towers: list[Literal["vision", "qformer", "language", "largest"]] = ["language"]
    splits: Splits = Splits()
    tolerance: Tolerance = Tolerance()
    importance: Importance = Importance()
    stages: dict[Axis, Stage]
    distillation: Distillation = Distillation()
    evaluation: Evaluation = Evaluation()
    data_checks: Literal["all", "lazy"] = "all"
    store: str | None = None
    trust_remote_code: Literal[False] = False

    def stage_towers(self) -> list[str | None]:
        """The towers that a stage goes through in turn; None stands for whichever is the largest at each step."""
        return [None if name == "largest" else name for name in self.towers]

    def most_steps(self, axis: Axis) -> int:
        """How many steps a stage makes if the gate accepts them all."""
        return len(self.towers) * len(self.stages[axis].amounts())

    def key_settings(self) -> dict[str, Any]:
        """The settings that a run's outcome depends on: all but where things lie, what is checked before it begins, and
        how speed is measured."""
        left_out = {"model", "data", "store", "evaluation", "data_checks"}
        checks = {"tolerance": {"allow_zero": True}}
        return self.model_dump(mode="json", exclude=checks | dict.fromkeys(left_out, True)) | {
            "stages": [[axis, stage.model_dump()] for axis, stage in self.stages.items()]
        }


def read_plan(path: Path, overrides: tuple[str, ...] = ()) -> Plan:
    """Read a plan file; relative `model`, `data` and `store` paths are taken from the file's own folder.

    Raises UserError where the file is no mapping or a setting is unknown or out of its range.
    """
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such plan file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a plan is a mapping of settings, this holds {type(raw).__name__}")
    for key in ("model", "data", "store"):
        value = raw.get(key)
        if isinstance(value, str) and "://" not in value and not value.startswith("models:/"):
            raw[key] = str((path.parent / value).resolve())
    return parse_plan(raw, overrides, where=str(path))


def parse_plan(raw: dict[str, Any], overrides: tuple[str, ...] = (), where: str = "plan") -> Plan:
    """Check a raw mapping, after applying `key.key=value` overrides, whose values are YAML."""
    raw = json.loads(json.dumps(raw))
    for override in overrides:
        _apply_override(raw, override)
    try:
        return Plan.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{where}: {_explain(error)}") from None


def digest_of(value: Any) -> str:
    """sha256 of a JSON-able value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _apply_override(raw: dict[str, Any], override: str) -> None:
    path, separator, value = override.partition("=")
    if not separator:
        raise UserError(f"--set {override}: write it as key.key=value")
    *parents, last = path.strip().split(".")
    node: Any = raw
    for name in parents:
        node = node.setdefault(name, {}) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise UserError(f"--set {override}: {'.'.join(parents)} is no section of the plan")
    node[last] = yaml.safe_load(value)


def _explain(error: ValidationError) -> str:
    """The first fault of a validation error as one line; an unknown key comes with the nearest known one."""
    fault = error.errors()[0]
    location = [str(part) for part in fault["loc"] if not str(part).startswith(("constrained", "literal", "function"))]
    place = ".".join(location) or "the plan"
    if fault["type"] in ("extra_forbidden", "enum"):
        model: type[BaseModel] = Plan
        for part in location[:-1]:
            annotation = model.model_fields[part].annotation if part in model.model_fields else None
            model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else model
        in_stages = location[0] == "stages"
        known = [axis.value for axis in Axis] if in_stages and len(location) <= 3 else list(model.model_fields)
        if in_stages and fault["type"] == "extra_forbidden":
            known = list(Stage.model_fields)
        name = str(fault["input"]) if fault["type"] == "enum" else location[-1]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        return f"unknown key {name!r} in {place}; {hint}"
    if fault["type"] == "missing":
        return f"{place} is missing; every plan names it"
    return f"{place}: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}"
