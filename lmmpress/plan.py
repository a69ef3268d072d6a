"""The plan: everything a user asks of a run, checked when it is read.

A plan is YAML. Unknown keys are refused with the nearest known one, so that a misspelt setting never silently keeps
its default; so are addresses with credentials in them, since a plan is kept and shown. Steps and maxima are totals:
`attention` counts over all heads of a block, the others as they stand.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lmmpress.axes import axes
from lmmpress.errors import UserError
from lmmpress.printing.credentials import address_holds_credentials, address_without_credentials
from lmmpress.settings.faults import faults_of, lines_of, nearest, without_followers
from lmmpress.settings.plain_yaml import Document, Place, parse_value, read_document

ADDRESSES = ("model", "data", "store")
"""The settings that say where something lies."""

MOST_STEPS = 10_000
"""Of a stage."""


def _known_key(name: str) -> str:
    known = [axis.name for axis in axes()]
    if name not in known:
        raise ValueError(f"unknown key; {nearest(name, known)}")
    return name


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


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


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

    @model_validator(mode="after")
    def _can_be_made(self) -> "Stage":
        if self.max // self.step > MOST_STEPS:
            raise ValueError(f"asks for {self.max // self.step} steps; a stage has at most {MOST_STEPS}")
        return self

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

    model: Address
    data: Address
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    towers: list[Literal["vision", "qformer", "language", "largest"]] = ["language"]
    splits: Splits = Splits()
    tolerance: Tolerance = Tolerance()
    importance: Importance = Importance()
    stages: dict[Annotated[str, AfterValidator(_known_key)], Stage]
    distillation: Distillation = Distillation()
    evaluation: Evaluation = Evaluation()
    data_checks: Literal["all", "lazy"] = "all"
    store: Address | None = None
    trust_remote_code: Literal[False] = False

    def stage_towers(self) -> list[str | None]:
        """The towers that a stage goes through in turn; None stands for whichever is the largest at each step."""
        return [None if name == "largest" else name for name in self.towers]

    def most_steps(self, axis: str) -> int:
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

    Raises UserError, with a line for each fault, where the file is no mapping or settings are unknown or out of their
    ranges.
    """
    document = read_document(path, "plan")
    for key in ADDRESSES:
        value = document.value.get(key)
        if isinstance(value, str) and _is_path(value):
            document.value[key] = str((path.parent / value).resolve())
    return _checked(document, overrides, str(path))


def parse_plan(raw: dict[str, Any], overrides: tuple[str, ...] = (), where: str = "plan") -> Plan:
    """Check a raw mapping, after applying `key.key=value` overrides, whose values are YAML."""
    return _checked(Document(raw), overrides, where)


def digest_of(value: Any) -> str:
    """sha256 of a JSON-able value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _is_path(address: str) -> bool:
    """Whether an address is a path of this machine; one with a password in it is to be refused as it is."""
    return not ("://" in address or address.startswith("models:/") or address_holds_credentials(address))


def _checked(document: Document, overrides: tuple[str, ...], where: str) -> Plan:
    wrong: list[str] = []
    raw, lines, faults = document.value, document.lines, document.faults
    for override in overrides:
        try:
            keys, value = _parse_override(override)
            raw = _with(raw, keys, value)
        except UserError as error:
            wrong += error.lines
            continue
        lines = {place: line for place, line in lines.items() if place[: len(keys)] != keys}
        faults = {place: fault for place, fault in faults.items() if place[: len(keys)] != keys}
    try:
        plan = Plan.model_validate(raw)
    except ValidationError as error:
        faults = without_followers(faults, faults_of(error, Plan))
    if wrong or faults:
        raise UserError(*wrong, *lines_of(faults, where, lines))
    return plan


def _parse_override(override: str) -> tuple[Place, Any]:
    path, separator, value = override.partition("=")
    if not separator:
        raise UserError(f"--set {override}: write it as key.key=value")
    return tuple(path.strip().split(".")), parse_value(value, f"--set {path.strip()}")


def _with(raw: Any, keys: Place, value: Any) -> Any:
    """A copy of a mapping in which one setting has another value."""
    nodes = [raw]
    for name in keys[:-1]:
        nodes.append(nodes[-1].get(name, {}))
        if not isinstance(nodes[-1], dict):
            parents = ".".join(keys[: len(nodes) - 1])
            raise UserError(f"--set {'.'.join(keys)}: {parents} is no section of the plan")
    for node, name in zip(reversed(nodes), reversed(keys), strict=True):
        value = node | {name: value}
    return value
