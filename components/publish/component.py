"""Check, register and report the result."""

from kfp.dsl import HTML, Markdown, Metrics, Model, Output

from lmmpress.components import component


@component
def publish(
    store: str,
    run: str,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
    report: Output[HTML],
) -> None:
    """Check that plain transformers loads what is left, register it in MLflow, and write the report."""
    from lmmpress.tasks.publication import publish

    publish(store, run, report.path).show(model, metrics, summary)
