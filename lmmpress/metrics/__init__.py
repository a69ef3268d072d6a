"""The metrics: how a row is scored, from its tokens, from the text that the model writes, or against the teacher. All
texts are untrusted: docs/metrics.md says what each metric does with them."""

from lmmpress.metrics.metric import Metric, check_answers, score_rows
from lmmpress.metrics.registry import metric_named, metric_names
from lmmpress.metrics.setting import MetricsByTask, metric_of, metrics_of

__all__ = [
    "Metric",
    "MetricsByTask",
    "check_answers",
    "metric_named",
    "metric_names",
    "metric_of",
    "metrics_of",
    "score_rows",
]
