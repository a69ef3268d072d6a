"""Everything measured of one checkpoint on one split."""

from pathlib import Path

from lmmpress.data import read_split
from lmmpress.data.facts import facts_of
from lmmpress.evaluation.accuracy import answered_right
from lmmpress.evaluation.opened import open_to_measure
from lmmpress.evaluation.speed import Subject, measure_speeds, sampled
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.lmm.forward import visual_features
from lmmpress.plan import Evaluation
from lmmpress.printing.numbers import in_short
from lmmpress.printing.sheet import Grid, Part, Shown
from lmmpress.result import Latency, Record


class Measurement(Shown, Record):
    """One checkpoint on one split, in the words of result.json: see `lmmpress.result.Headline` and `Speed`."""

    rows: int
    accuracy: float
    accuracy_by_task: dict[str, float]
    samples_per_second: float
    batch_size: int
    latency_ms: Latency
    tokens: float
    natural_tokens: float
    parameters: int
    parameters_by_tower: dict[str, int]

    def __repr__(self) -> str:
        return (
            f"<accuracy {self.accuracy:.4f} on {self.rows} rows, {self.samples_per_second:.1f} samples/s at batch "
            f"{self.batch_size}, {in_short(self.parameters)} parameters>"
        )

    __str__ = __repr__

    def shown(self) -> tuple[Part, ...]:
        """Accuracy by task, then speed."""
        tasks = [(task, f"{accuracy:.4f}") for task, accuracy in self.accuracy_by_task.items()]
        grid = Grid(("task", "accuracy"), (*tasks, ("all", f"{self.accuracy:.4f}")), strong=frozenset({len(tasks)}))
        speed = (
            f"{self.samples_per_second:.1f} samples/s at batch {self.batch_size}, latency p50 "
            f"{self.latency_ms.p50:.0f} ms, p95 {self.latency_ms.p95:.0f} ms, at the right answers' lengths, "
            f"{self.tokens:.1f} tokens on average; its own answers have {self.natural_tokens:.1f}"
        )
        return grid, speed


def evaluate_checkpoint(checkpoint: Path, data: Path, split: str, settings: Evaluation) -> Measurement:
    """Accuracy, overall and by task, samples per second, latency and parameters.

    Raises UserError where plain greedy generation would not answer what the model's logits say.
    """
    opened = open_to_measure(checkpoint)
    rows = read_split(data, split)
    examples = opened.encoded(rows)
    model, anatomy = opened.load(), opened.anatomy
    features = visual_features(model, examples, anatomy, settings.batch_size)
    right = answered_right(model, examples, anatomy.projector, features, settings.batch_size, opened.ends)
    asked = opened.encoded(sampled(rows, settings))
    (speed,) = measure_speeds([Subject(model, opened.tokenizer, asked, opened.ends)], settings)
    assert speed.tokens is not None
    assert speed.natural_tokens is not None
    counts = count_by_tower(anatomy)
    return Measurement(
        rows=len(rows.rows),
        accuracy=float(right.double().mean()),
        accuracy_by_task=facts_of(rows).by_task(right.numpy()),
        samples_per_second=speed.samples_per_second,
        batch_size=speed.batch_size,
        latency_ms=speed.latency_ms,
        tokens=speed.tokens,
        natural_tokens=speed.natural_tokens,
        parameters=sum(counts.values()),
        parameters_by_tower=counts,
    )
