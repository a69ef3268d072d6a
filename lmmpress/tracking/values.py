"""The values that MLflow gets, in its forms and within its limits.

Some texts come from untrusted files: names of tasks and splits, reasons, paths. Control characters in them are made
visible, and so are lone surrogates, which no database takes.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmmpress.printing.visible import visible
from lmmpress.result import Drop, Headline, Metrics, Result, RunEnergy, RunInfo, StepResult, metric_title

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

KEY_LENGTH, VALUE_LENGTH, INPUT_TAG_LENGTH = 250, 5000, 500
DIGEST_LENGTH = 36  # what MLflow allows of a data set's digest; the whole one is in the tag lmmpress.digest

Scalars = Mapping[str, float | None]


def metrics(values: Scalars, stamp: int, position: int, **where: Any) -> "list[Metric]":
    """Metrics of one moment, in milliseconds since 1970, without values that were not measured or are infinite, which
    no database takes."""
    from mlflow.entities import Metric

    return [
        Metric(_key(name), float(value), stamp, position, **where)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    ]


def by(name: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}.{part}": value for part, value in values.items()}


def tags(**values: object) -> dict[str, str]:
    """Our tags, each under lmmpress. and its name."""
    return texts({f"lmmpress.{name}": value for name, value in values.items()})


def texts(values: Mapping[str, object]) -> dict[str, str]:
    """Texts within MLflow's limits; mappings become JSON, None is left out."""
    return {_key(key): _value(value)[:VALUE_LENGTH] for key, value in values.items() if value is not None}


def flat(settings: Mapping[str, Any], prefix: str = "plan") -> dict[str, Any]:
    """Nested settings under dotted names."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}.{key}"
        found |= flat(value, name) if isinstance(value, dict) else {name: value}
    return found


def title(name: str) -> str:
    """A name that people read: of a run, an experiment or a data set."""
    return visible(name)[:KEY_LENGTH]


def plain(name: str) -> str:
    """A name that both the registry and LoggedModels take."""
    return re.sub(r"[^\w -]", "-", name)[:KEY_LENGTH] or "model"


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:DIGEST_LENGTH]


def equals(tag: str, value: str) -> str:
    """A condition of MLflow's searches."""
    return f"tags.`lmmpress.{tag}` = '{value}'"


def dataset_inputs(info: RunInfo) -> "list[DatasetInput]":
    """One input per split. A split with two roles names both, because MLflow keeps only the first of equal inputs."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    roles: dict[tuple[str, str, int], list[str]] = {}
    for split in info.data:
        roles.setdefault((split.split, split.digest, split.rows), []).append(split.role)
    return [
        DatasetInput(
            Dataset(
                name=title(name),
                digest=short(digest),
                source_type="local",
                source=json.dumps({"uri": info.plan.data}),
                profile=json.dumps({"num_rows": rows}),
            ),
            tags=[
                InputTag("mlflow.data.context", ", ".join(used)),
                InputTag("lmmpress.digest", digest[:INPUT_TAG_LENGTH]),
            ],
        )
        for (name, digest, rows), used in roles.items()
    ]


def machine_tags(step: StepResult) -> dict[str, str]:
    """The pods of a step by part, and its nodes and GPUs."""
    pods = {f"pod.{part}": machine.pod for part, machine in step.machines.items()}
    machines = step.machines.values()
    nodes, gpus = ({getattr(machine, key) for machine in machines} for key in ("node", "gpu"))
    shared = {"node": ", ".join(sorted(nodes - {""})), "gpu": ", ".join(sorted(gpus - {""}))}
    return {name: text for name, text in (pods | shared).items() if text}


def machine_values(step: StepResult) -> dict[str, float | None]:
    """The most memory in bytes that each part of a step took, of its process and of its GPUs."""
    found: dict[str, float | None] = {}
    for part, machine in step.machines.items():
        found[f"peak_memory.{part}"] = machine.peak_memory
        found[f"peak_gpu_memory.{part}"] = machine.peak_gpu_memory
    return found


def closing_values(result: Result) -> dict[str, float | None]:
    """The metrics of the closing table, without accuracies."""
    values: dict[str, float | None] = {
        "test.drop": result.drop,
        "test.drop_low": result.drop_interval.low,
        "test.drop_high": result.drop_interval.high,
        "seconds": result.seconds,
    }
    for name, model in (("original", result.original), ("compressed", result.compressed)):
        values |= {
            f"{name}.samples_per_second": model.samples_per_second,
            f"{name}.latency_ms_p50": model.latency_ms.p50 if model.latency_ms else None,
            f"{name}.latency_ms_p95": model.latency_ms.p95 if model.latency_ms else None,
            f"{name}.tokens": model.tokens,
            f"{name}.natural_tokens": model.natural_tokens,
            f"{name}.parameters": model.parameters,
        }
        if model.compiled:
            values |= {
                f"{name}.compiled_samples_per_second": model.compiled.samples_per_second,
                f"{name}.compiled_latency_ms_p50": model.compiled.latency_ms.p50,
            }
    if (timing := result.compressed.timing) and timing.ratio:
        values |= {"speed.ratio_low": timing.ratio.low, "speed.ratio_high": timing.ratio.high}
    values |= drop_values(result.drop_by_task, "test.") | energy_values(result.energy)
    return values | by("reduction", result.reduction) | by("seconds", result.seconds_by_part)


def energy_values(energy: RunEnergy | None) -> dict[str, float | None]:
    """Energy in kWh, of 1,000 inferences of each model and of the compression. The name says whether it is measured or
    estimated, since the two do not compare."""
    if energy is None:
        return {}
    each = {name: getattr(energy, name) for name in ("original", "compressed", "compression")}
    found = {f"energy.{name}_kwh.{one.kind}": one.kwh for name, one in each.items() if one}
    return {**found, "energy.break_even": energy.break_even}


def test_values(result: Result, model: Headline) -> dict[str, float]:
    """The accuracies of one of the models of a result on the test split."""
    by_task = task_values(model.accuracy_by_task, result.metrics)
    return {f"test.{name}": value for name, value in ({"accuracy": model.accuracy} | by_task).items()}


def task_values(accuracy_by_task: Mapping[str, float], metrics: Metrics) -> dict[str, float]:
    """What each task's rows are worth, as accuracy.TASK; where that is another metric's number, also under its name."""
    others = {
        f"{metrics[task].name}.{task}": value
        for task, value in accuracy_by_task.items()
        if task in metrics and metrics[task].name != "exact"
    }
    return by("accuracy", accuracy_by_task) | others


def drop_values(drops: Mapping[str, Drop], prefix: str = "") -> dict[str, float]:
    """What each task has lost, with the bounds of its interval; a bound that is infinite is none."""
    found: dict[str, float] = {}
    for task, drop in drops.items():
        ends = {"drop": drop.value, "drop_low": drop.interval.low, "drop_high": drop.interval.high}
        found |= {f"{prefix}{name}.{task}": value for name, value in ends.items() if math.isfinite(value)}
    return found


def metric_tag(metrics: Metrics) -> dict[str, str] | None:
    """The metric of each task, for a tag; None if all are exact answers."""
    return None if metric_title(metrics) == "accuracy" else {task: metric.title for task, metric in metrics.items()}


def _key(name: str) -> str:
    return re.sub(r"[^\w. -]", "_", name)[:KEY_LENGTH]


def _value(value: object) -> str:
    return visible(json.dumps(value) if isinstance(value, dict | list) else value)
