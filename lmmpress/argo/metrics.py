"""Argo's metrics for Prometheus: what the controller tells of each part that has ended, and of each decision.

Argo puts `argo_workflows_` before their names. Values are read from the results of the tasks.
"""

from collections.abc import Mapping

from hera.workflows import Counter, Gauge, Label

from lmmpress.tasks.cluster_profile import Pod

_RESULT = "outputs.parameters.result"
_ENDED_WELL = "{{status}} == Succeeded"
_NAME = "{{workflow.parameters.name}}"


def part_metrics(part: str, pod: Pod, of_a_stage: bool) -> list[Counter | Gauge]:
    """Seconds of a part's pods, and seconds of its GPUs; of the gate also its decision."""
    labels = {"model": _NAME, "part": part}
    if of_a_stage:
        labels["stage"] = "{{inputs.parameters.stage}}"
    found: list[Counter | Gauge] = [
        _counter("lmmpress_seconds_total", "seconds of the pods of a part", "{{duration}}", labels)
    ]
    if pod.gpus:
        value = f"{{{{=asFloat(duration) * {pod.gpus}}}}}"
        found.append(_counter("lmmpress_gpu_seconds_total", "GPUs of a part times their seconds", value, labels))
    return found + (_of_the_gate() if part == "gate" else [])


def _of_the_gate() -> list[Counter | Gauge]:
    labels = {"model": _NAME, "stage": "{{inputs.parameters.stage}}"}
    decided = labels | {"decision": _read("facts.decision")}
    accuracy = "accuracy of the last step"
    return [
        _counter("lmmpress_steps_total", "decided steps", "1", decided, _ENDED_WELL),
        _counter("lmmpress_accepted_total", "accepted steps", _read("metrics.accepted"), labels, _ENDED_WELL),
        _gauge("lmmpress_accuracy", accuracy, _read("metrics.accuracy"), labels),
        _gauge("lmmpress_accuracy_drop", "drop of the last step's accuracy", _read("metrics.drop"), labels),
        _gauge("lmmpress_alpha", "drop at which a step is no longer accepted", "{{workflow.parameters.alpha}}", labels),
    ]


def _read(path: str) -> str:
    return f"{{{{=jsonpath({_RESULT}, '$.{path}')}}}}"


def _counter(name: str, what: str, value: str, labels: Mapping[str, str], when: str | None = None) -> Counter:
    return Counter(name=name, help=what, value=value, labels=_labels(labels), when=when)


def _gauge(name: str, what: str, value: str, labels: Mapping[str, str]) -> Gauge:
    return Gauge(name=name, help=what, value=value, realtime=False, labels=_labels(labels), when=_ENDED_WELL)


def _labels(labels: Mapping[str, str]) -> list[Label]:
    return [Label(key=key, value=value) for key, value in labels.items()]
