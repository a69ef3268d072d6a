"""The plan: all settings of a run, checked when it is read.

A plan is YAML. Unknown keys are refused with the nearest known one, so that a misspelt setting never silently keeps
its default; so are addresses with credentials in them, since a plan is kept and shown. Steps and maxima are totals:
`attention` counts over all heads of a block, the others as they stand.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from lmmpress.errors import UserError
from lmmpress.metrics.measured import WITHOUT_ANSWERS
from lmmpress.metrics.scale import names_in, widest
from lmmpress.metrics.setting import ONLY_EXACT, MetricsByTask
from lmmpress.printing.credentials import address_holds_credentials, address_without_credentials
from lmmpress.settings.base import Settings
from lmmpress.settings.distillation import Distillation
from lmmpress.settings.faults import faults_of, lines_of, nearest, without_followers
from lmmpress.settings.importance import Importance
from lmmpress.settings.overrides import parse_override, resolved, with_setting
from lmmpress.settings.plain_yaml import Document, Place, read_document
from lmmpress.settings.reading import Columns, Reading, Shares
from lmmpress.settings.schedule import RunEnds, Schedule, TowerName
from lmmpress.stages import Stage, Stages, fitted, stage_names

ADDRESSES = ("model", "data", "store")
"""The settings that are addresses or paths."""

PREVIOUS = "previous"
"""The `start_from` that asks for the last run of the store."""

MOST_SECONDS = 86_400
"""That measuring speed may take."""


def _without_secrets(address: str) -> str:
    if address_holds_credentials(address):
        raise ValueError(
            f"holds credentials, and a plan is kept and shown: write {address_without_credentials(address)} and give "
            "them in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), on a cluster by a Secret"
        )
    if "\0" in address:
        raise ValueError("has a null character in it")
    return address


Address = Annotated[str, AfterValidator(_without_secrets)]
Turns = Literal["last", "all"]
Template = Literal["auto", "never", "always"]


class Splits(Settings):
    """The names, in the data, of the four disjoint splits that a run needs."""

    score: str = "score"
    distill: str = "distill"
    gate: str = "gate"
    test: str = "test"


class Tolerance(Settings):
    """When a step is accepted (Algorithm 1): its accuracy drop is below `alpha`, on the scale of the metrics in use.

    `reference` is the model that the drop is measured from: the start of the `stage`, as printed in the paper, or the
    `original`. `on_violation` says what happens to a step that breaks alpha: `rollback` to the last accepted
    checkpoint, or `keep` it, as printed; the stage ends in both cases. With a `confidence` the gate compares the upper
    end of that two-sided paired interval of the drop instead of the drop itself. With `per_task` each task has to stay
    below alpha too, or each named one below its own. `split` is the split the gate measures on; the paper measures on
    the distillation set. A run is refused if its original answers no row of that split right, because its gate would
    accept everything; `allow_zero` allows it, which is useful only for tests on random models.
    """

    alpha: Annotated[float, Field(gt=0)] = 0.15
    reference: Literal["stage", "original"] = "stage"
    on_violation: Literal["rollback", "keep"] = "rollback"
    confidence: Literal["none"] | Annotated[float, Field(gt=0, lt=1)] = "none"
    per_task: bool | dict[str, Annotated[float, Field(gt=0)]] = False
    split: Literal["gate", "distill"] = "gate"
    allow_zero: bool = False

    def alpha_of(self, task: str) -> float | None:
        """The alpha of a task's own drop; None if the gate does not guard the task."""
        if isinstance(self.per_task, dict):
            return self.per_task.get(task)
        return self.alpha if self.per_task else None


class Evaluation(Settings):
    """How speed is measured, unless `speed` is false: `samples` rows at `batch_size`, `latency_samples` single ones.

    True is `eager`. With `compiled` the step that makes a token is compiled, where that works; or `both` are measured.

    It takes about `seconds`, and less where speed is known well enough before. On a machine on which that time is too
    short for it, there are fewer rows.

    A generated answer is cut off after `max_new_tokens`, end token included; without it the data says how many.

    Where no counter tells energy, it is estimated from `watts_per_core` and `watts_per_gpu`. What the compressed model
    saves in a year is that of `inferences_per_year`. See docs/energy.md.

    `processes` share the rows that a checkpoint answers, one per GPU if there are GPUs; speed is that of one process.
    """

    added_later: ClassVar[frozenset[str]] = frozenset({"processes"})

    batch_size: Annotated[int, Field(gt=0)] = 32
    samples: Annotated[int, Field(gt=0)] = 128
    latency_samples: Annotated[int, Field(gt=0)] = 32
    speed: bool | Literal["eager", "compiled", "both"] = True
    seconds: Annotated[float, Field(gt=0, le=MOST_SECONDS)] = 60.0
    max_new_tokens: Annotated[int, Field(gt=0)] | None = None
    watts_per_core: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    watts_per_gpu: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    inferences_per_year: Annotated[int, Field(gt=0)] | None = None
    processes: Annotated[int, Field(gt=0)] = 1

    def of_speed(self) -> dict[str, Any]:
        """The settings that speed depends on: those of energy and of other measurements change nothing."""
        return self.model_dump(exclude={"watts_per_core", "watts_per_gpu", "inferences_per_year", "processes"})


class Pipeline(Settings):
    """How a pipeline goes about a run. After a stage named in `approve` it waits for a person's approval."""

    approve: list[str] = Field(default=[])


class Jumps(Settings):
    """How a warm run makes its jumps.

    With `carry`, the jump over all steps cuts what the earlier run has cut, and adds what distilling changed in that
    run. If the gate does not accept it so, it is distilled for `carry_epochs`, unless they are 0. Any other jump scores
    anew, and over n steps it distils for `share` times their epochs, at least for those of one step.
    """

    carry: bool = True
    carry_epochs: Annotated[int, Field(ge=0)] = 1
    share: Annotated[float, Field(gt=0, le=1)] = 0.5


class Plan(Settings):
    """The plan of a run. See docs/plan.md for every key.

    `data_checks` says when rows are checked: `all` of every split before the first step, or each split only when it is
    first used (`lazy`). `columns`, `shares`, `data_errors` and `skipped_at_most` say how rows are read, see
    `lmmpress.settings.reading.Reading`. With `compare` a run compares its result with its original at its end.
    `start_from` names an earlier run, whose kept steps this run takes at once: `previous`, or the address of a run.
    lmmpress looks it up when the run begins, and puts what it finds into `schedule`. `metrics` names the metric of each
    task, and by `default` that of all others: see docs/metrics.md. With `labels: teacher` the model learns the answers
    that the teacher gives to the rows to score and to distil, and no row needs an answer.

    `turns` says which answers of a conversation scores and distillation learn from: the `last`, or `all` of them.
    `template` says which rows the checkpoint's chat template renders: those that were written as messages, if it has
    one (`auto`), none (`never`), or all (`always`).
    """

    model: Address
    data: Address
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    towers: list[TowerName] = Field(default=["language"])
    splits: Splits = Splits()
    tolerance: Tolerance = Tolerance()
    metrics: MetricsByTask = ONLY_EXACT
    labels: Literal["given", "teacher"] = "given"
    importance: Importance = Importance()
    stages: Stages
    distillation: Distillation = Distillation()
    evaluation: Evaluation = Evaluation()
    turns: Turns = "last"
    template: Template = "auto"
    data_checks: Literal["all", "lazy"] = "all"
    columns: Columns = Field(default={})
    shares: Shares = Shares()
    data_errors: Literal["fail", "skip"] = "fail"
    skipped_at_most: Annotated[float, Field(gt=0, le=1)] = 0.01
    compare: bool = False
    pipeline: Pipeline = Pipeline()
    store: Address | None = None
    start_from: Address | None = None
    jumps: Jumps = Jumps()
    schedule: Schedule | None = None
    trust_remote_code: Literal[False] = False

    @field_validator("stages")
    @classmethod
    def _fit_their_towers(cls, stages: list[Stage], info: ValidationInfo) -> list[Stage]:
        """Check that amounts by tower are those of the towers in use; faults of `towers` are told elsewhere."""
        return fitted(stages, info.data["towers"]) if "towers" in info.data else stages

    @model_validator(mode="after")
    def _approves_known_stages(self) -> "Plan":
        names = [stage.name for stage in self.stages]
        for name in self.pipeline.approve:
            if name not in names:
                raise ValueError(f"pipeline.approve: there is no stage {name!r}; {nearest(name, names)}")
        return self

    @model_validator(mode="after")
    def _stops_by_exact_answers(self) -> "Plan":
        if self.distillation.stop_within and self.metrics != ONLY_EXACT:
            raise ValueError(
                "distillation.stop_within: alpha has to be a share of rows, so it goes with exact answers alone; leave "
                "metrics or stop_within out"
            )
        return self

    @model_validator(mode="after")
    def _follows_schedule(self) -> "Plan":
        """Check that the steps of a schedule are some that the stages can make, in their order."""
        self.schedule_loops()
        return self

    @property
    def reading(self) -> Reading:
        """How the rows of the data are read."""
        return Reading(
            columns=self.columns,
            shares=self.shares,
            seed=self.seed,
            unlabelled=self.labels == "teacher" or bool(names_in(self.metrics) & WITHOUT_ANSWERS),
            errors=self.data_errors,
            skipped_at_most=self.skipped_at_most,
        )

    @property
    def is_mapping(self) -> bool:
        """Whether a mapping from axes to amounts can express the stages: each axis once, all with the plan's towers."""
        used = [stage.axis for stage in self.stages]
        return len(set(used)) == len(used) and all(stage.tower is None for stage in self.stages)

    @property
    def in_numbers(self) -> bool:
        """Whether no amount of a stage is a share: `lmmpress.pruning.amounts.with_numbers` gives such a plan."""
        return all(stage.in_numbers for stage in self.stages)

    def stage(self, name: str) -> Stage:
        """The stage of that name; UserError with the nearest name if there is none."""
        found = {stage.name: stage for stage in self.stages}
        if name not in found:
            raise UserError(f"the plan has no stage {name!r}; {nearest(name, list(found))}")
        return found[name]

    def stage_towers(self, stage: Stage) -> list[str | None]:
        """The towers that a stage goes through in turn; None stands for the largest tower at each step."""
        return [None if name == "largest" else name for name in self._towers_of(stage)]

    def _towers_of(self, stage: Stage) -> list[TowerName]:
        return [stage.tower] if stage.tower else self.towers

    def schedule_loops(self) -> list[int]:
        """For each step of the schedule, which loop of steps it belongs to: the loops of all stages, one for each
        tower, are counted from 0. ValueError if no loop makes such a step there, or if a loop would remove more than
        its stage may."""
        loops = [(stage.name, tower) for stage in self.stages for tower in self._towers_of(stage)]
        if self.schedule is None or not self.in_numbers:  # shares are checked when they are numbers
            return []
        left = [stage.numbers(tower)[1] for stage in self.stages for tower in self.stage_towers(stage)]
        found, at = [], 0
        for step in self.schedule.steps:
            while at < len(loops) and loops[at] != (step.stage, step.tower):
                at += 1
            if at == len(loops):
                raise ValueError(f"schedule: no stage of the plan makes a step of {step.stage} on {step.tower} there")
            left[at] -= step.removed
            if left[at] < 0:
                raise ValueError(f"schedule: the steps of {step.stage} on {step.tower} remove more than that stage may")
            found.append(at)
        return found

    def towers_in_use(self) -> list[TowerName]:
        """Every tower that some stage goes through; the plan's towers if there is no stage."""
        own = [stage.tower for stage in self.stages if stage.tower]
        shared = self.towers if len(own) < len(self.stages) or not self.stages else []
        return list(dict.fromkeys([*shared, *own]))

    def most_steps(self, stage: Stage) -> int:
        """How many steps a stage makes if the gate accepts them all; of shares the most that there can be."""
        return sum(map(stage.most_steps, self.stage_towers(stage)))

    def carried_over(self, steps: int) -> RunEnds | None:
        """The ends of the earlier run if a jump over so many steps of the schedule carries over what it has learned:
        one over all of them."""
        schedule = self.schedule
        return schedule.ends if schedule and self.jumps.carry and 1 < steps == len(schedule.steps) else None

    def epochs_over(self, steps: int) -> int:
        """How many epochs a step distils that goes over so many steps of a schedule; one alone is like any other."""
        if self.carried_over(steps):
            return self.jumps.carry_epochs
        epochs = self.distillation.epochs
        return max(epochs, math.ceil(epochs * steps * self.jumps.share))

    @field_serializer("stages")
    def _as_written(self, stages: list[Stage]) -> dict[str, Any] | list[dict[str, Any]]:
        """The stages as a mapping if one can express them, as in plans of older versions; else as a list."""
        if self.is_mapping:
            return {stage.axis: stage.amounts() for stage in stages}
        return [stage.as_written() for stage in stages]

    def key_settings(self) -> dict[str, Any]:
        """The settings that a run's outcome depends on: all except addresses, the checks before the run, the
        measurement of speed, the comparison at the end, the approvals that a pipeline waits for, and how processes
        share rows and students. How to jump counts where there is a schedule, so that a run that found none is the run
        of the same plan without `start_from`. Defaults of `turns` and `template` are left out, so that the keys of
        earlier versions stay."""
        left_out = {"model", "data", "store", "evaluation", "data_checks", "compare", "pipeline", "start_from"}
        left_out |= {"columns", "shares", "data_errors", "skipped_at_most"}  # the digest of the rows says what they do
        if self.schedule is None:
            left_out |= {"schedule", "jumps"}
        if self.metrics == ONLY_EXACT:
            left_out.add("metrics")
        if self.labels == "given":
            left_out.add("labels")
        left_out |= {name for name in ("turns", "template") if getattr(self, name) == Plan.model_fields[name].default}
        guarded = {} if self.tolerance.per_task else {"per_task": True}
        checks = {
            "tolerance": {"allow_zero": True} | guarded,
            "importance": {"processes": True},
            "distillation": {"draw": True, "sharding": True},
        }
        longest = self.evaluation.max_new_tokens
        found = self.model_dump(mode="json", exclude=checks | dict.fromkeys(left_out, True))
        found["distillation"] |= {
            "caches": self.distillation.caches_in_key,
            "micro_batch_size": self.distillation.rows_at_once,
        }
        return (
            found
            | {"stages": [[stage.axis, stage.amounts() | self._own_tower(stage)] for stage in self.stages]}
            | ({} if longest is None else {"max_new_tokens": longest})
        )

    def _own_tower(self, stage: Stage) -> dict[str, str]:
        """A stage's own tower, if it differs from the plan's."""
        return {"tower": stage.tower} if stage.tower and [stage.tower] != self.towers else {}


def read_plan(path: Path, overrides: tuple[str, ...] = ()) -> Plan:
    """Read a plan file; relative paths of `model`, `data`, `store` and `start_from` are taken from the file's own
    folder.

    Raises UserError, with a line for each fault, if the file is no mapping, or settings are unknown or out of their
    ranges.
    """
    document = read_document(path, "plan")
    for key in (*ADDRESSES, "start_from"):
        value = document.value.get(key)
        if isinstance(value, str) and value != PREVIOUS and _is_path(value):
            document.value[key] = str((path.parent / value).resolve())
    return _checked(document, overrides, str(path))


def parse_plan(raw: dict[str, Any], overrides: tuple[str, ...] = (), where: str = "plan") -> Plan:
    """Check a raw mapping, after applying `key.key=value` overrides, whose values are YAML."""
    return _checked(Document(raw), overrides, where)


def digest_of(value: Any) -> str:
    """sha256 of a JSON-able value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _is_path(address: str) -> bool:
    """Whether an address is a path of this machine. One with a password is not: it stays as written, to be refused."""
    return not ("://" in address or address.startswith("models:/") or address_holds_credentials(address))


def _names_of(stages: list[Any]) -> list[str]:
    """The names of stages in a raw list, not checked yet."""
    return stage_names(str(stage.get("axis")) if isinstance(stage, dict) else "" for stage in stages)


def _with_axis(raw: dict[str, Any], keys: Place, value: Any) -> Any:
    """The entry that replaces a stage in a list; it keeps that stage's axis, unless it names another."""
    stages = raw.get("stages")
    if keys[:-1] == ("stages",) and isinstance(stages, list) and isinstance(value, dict):
        before = stages[int(keys[-1])]
        return {"axis": before.get("axis")} | value if isinstance(before, dict) else value
    return value


def _checked(document: Document, overrides: tuple[str, ...], where: str) -> Plan:
    wrong: list[str] = []
    raw, lines, faults = document.value, document.lines, document.faults
    for override in overrides:
        try:
            keys, value = parse_override(override)
            keys = resolved(raw, keys, _names_of)
            raw = with_setting(raw, keys, _with_axis(raw, keys, value))
        except UserError as error:
            wrong += error.lines
            continue
        lines = {place: line for place, line in lines.items() if place[: len(keys)] != keys}
        faults = {place: fault for place, fault in faults.items() if place[: len(keys)] != keys}
    try:
        plan = Plan.model_validate(raw)
    except ValidationError as error:
        faults = without_followers(faults, faults_of(error, Plan))
    faults |= {place: fault for place, fault in _beyond_scale(raw).items() if place not in faults}
    if wrong or faults:
        raise UserError(*wrong, *lines_of(faults, where, lines))
    return plan


def _beyond_scale(raw: dict[str, Any]) -> dict[Place, str]:
    """The faults of alphas in a raw plan that no drop can reach by any metric that it names; other faults are found
    elsewhere."""
    tolerance = raw.get("tolerance")
    if not isinstance(tolerance, dict):
        return {}
    guards = tolerance.get("per_task")
    alphas: dict[Place, Any] = {("tolerance", "alpha"): tolerance.get("alpha")}
    if isinstance(guards, dict):
        alphas |= {("tolerance", "per_task", str(task)): alpha for task, alpha in guards.items()}
    large = {place: alpha for place, alpha in alphas.items() if type(alpha) in (int, float) and alpha >= 1}
    try:
        most = widest(raw.get("metrics", ONLY_EXACT)) if large else math.inf
    except (UserError, ValueError):
        return {}
    return {
        place: f"input should be less than {most:g}, got {alpha!r}" for place, alpha in large.items() if alpha >= most
    }
