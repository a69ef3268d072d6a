"""Compare the result with the original."""

from kfp.dsl import HTML, Markdown, Metrics, Model, Output

from lmmpress.components import component


@component
def compare(
    store: str,
    run: str,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
    page: Output[HTML],
) -> None:
    """Compare the original with what is left on the test rows, for those who put it into service."""
    from lmmpress.tasks.comparing import compare

    compare(store, run, page.path).show(model, metrics, summary)
