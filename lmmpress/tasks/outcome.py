"""What a task shows in the pages of Kubeflow."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmmpress.engine.algorithm import takes_over
from lmmpress.printing.visible import visible
from lmmpress.result import Machine, Result, StepResult, metric_title
from lmmpress.store import Store


@dataclass(frozen=True)
class Outcome:
    """What a task shows in the pages of Kubeflow: the address of its checkpoint, facts about it, metrics, and a few
    lines of Markdown."""

    address: str
    summary: str
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    facts: Mapping[str, str | None] = field(default_factory=dict)

    def show(self, model: Any, metrics: Any, summary: Any) -> None:
        """Fill in the artifacts of a component: a Model, Metrics, and a Markdown.

        The model's uri is the store's address behind a scheme of ours: Kubeflow only records a uri with an unknown
        scheme, but tries to move files with a known one.
        """
        model.uri = f"lmmpress+{self.address if '://' in self.address else f'file://{self.address}'}"
        model.metadata.update({"address": self.address} | {key: text for key, text in self.facts.items() if text})
        for name, value in self.metrics.items():
            if value is not None:
                metrics.log_metric(name, float(value))
        Path(summary.path).parent.mkdir(parents=True, exist_ok=True)
        Path(summary.path).write_text(self.summary + "\n", "utf-8")

    def linked(self, address: str) -> "Outcome":
        """The same, with a link to the run's page in MLflow; unchanged without an address."""
        return replace(self, summary=f"{self.summary}\n\n[the run in MLflow]({address})") if address else self

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON, without what was not measured."""
        return {
            "address": self.address,
            "facts": {name: text for name, text in self.facts.items() if text},
            "metrics": {name: float(value) for name, value in self.metrics.items() if value is not None},
            "summary": self.summary,
        }


def of_result(result: Result) -> Outcome:
    """The closing table."""
    before, after = result.original, result.compressed
    rows: list[list[Any]] = [
        ["parameters", before.parameters, after.parameters],
        [f"test {metric_title(result.metrics)}", f"{before.accuracy:.4f}", f"{after.accuracy:.4f}"],
    ]
    if (old := before.speed) and (new := after.speed):
        for one, other in zip(old.ways, new.ways, strict=False):
            rates = (f"{one.samples_per_second:.1f}", f"{other.samples_per_second:.1f}")
            rows.append([f"samples/s{other.suffix}", *rates])
            latencies = (f"{one.latency_ms.p50:.1f}", f"{other.latency_ms.p50:.1f}")
            rows.append([f"latency p50, ms{other.suffix}", *latencies])
    if before.natural_tokens is not None and after.natural_tokens is not None:
        rows.append(["tokens of its own answers", f"{before.natural_tokens:.1f}", f"{after.natural_tokens:.1f}"])
    metrics = {
        "accuracy": after.accuracy,
        "drop": result.drop,
        "parameters": after.parameters,
        "reduction": result.reduction["all"],
        "samples_per_second": after.samples_per_second,
        "latency_ms_p50": after.latency_ms.p50 if after.latency_ms else None,
        "natural_tokens": after.natural_tokens,
        "seconds": result.seconds,
    }
    facts = {"run_key": result.run_key, "teacher": before.checkpoint}
    summary = table(["", "original", "compressed"], rows)
    if not after.speed or after.timing:
        summary += f"\n\nspeed: {after.timing or 'not measured'}"
    return Outcome(after.address, summary, metrics, facts)


def of_step(store: Store, step: StepResult) -> Outcome:
    """The gate's decision on a step."""
    metrics = {
        "accepted": float(step.decision == "accepted"),
        "accuracy": step.accuracy,
        "drop": step.drop,
        "parameters": step.parameters,
    }
    facts = {"decision": step.decision, "parent": step.parent}
    summary = f"**{step.decision}**: {step.reason}"
    if len(step.drop_by_task) > 1:
        rows = [
            [task, step.metrics[task].title if task in step.metrics else "exact", f"{drop.value:.4f}"]
            for task, drop in step.drop_by_task.items()
        ]
        summary += f"\n\n{table(['task', 'metric', 'drop'], rows)}"
    return Outcome(address_left(store, step), summary, metrics, facts)


def address_left(store: Store, step: StepResult) -> str:
    """The address of the checkpoint that the run goes on from after a step."""
    goes_on = step.checkpoint if takes_over(step.decision) and step.checkpoint else step.parent
    return store.address(goes_on)


def memory(machine: Machine | None) -> dict[str, float | None]:
    """The most memory in bytes that a part took, as metrics."""
    found = machine or Machine()
    return {"peak_memory": found.peak_memory, "peak_gpu_memory": found.peak_gpu_memory}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; texts from files are escaped, so that they are no markup."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else re.sub(r"([|`*_<>\[\]\\])", r"\\\1", visible(value))


def accuracy_text(value: float | None) -> str:
    """An accuracy, or the reason why there is none."""
    return "not finite" if value is None else f"{value:.4f}"


def by(name: str, values: Mapping[str, int]) -> dict[str, float]:
    """Numbers of parts as metrics."""
    return {f"{name}_{part}": float(value) for part, value in values.items()}
