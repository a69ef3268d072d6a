"""lmmpress prune, inspect, evaluate: commands for one checkpoint."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lmmpress import api
from lmmpress.axes import axes
from lmmpress.cli.by_name import Columns, Metrics, columns_in, metrics_in
from lmmpress.cli.shared import AsJson, Checkpoint, show
from lmmpress.plan import Evaluation

AXES = "|".join(axis.name for axis in axes())
WHAT = "What becomes smaller. " + " ".join(f"{axis.name}: {axis.about}." for axis in axes())
UNSCORED = " or ".join(axis.name for axis in axes() if not axis.needs_scores)


def prune(
    checkpoint: Checkpoint,
    target: Annotated[Path, typer.Option("--output", "-o", help="The new checkpoint directory.")],
    axis: Annotated[str | None, typer.Option(metavar=AXES, help=WHAT)] = None,
    remove: Annotated[int | None, typer.Option(help="How much to cut; for attention the total over all heads.")] = None,
    tower: Annotated[str, typer.Option(help="vision, qformer or language.")] = "language",
    data: Annotated[str | None, typer.Option(help=f"Rows to score with; a cut along {UNSCORED} needs none.")] = None,
    split: Annotated[str, typer.Option(help="The split of the data to score with.")] = "score",
    cuts: Annotated[
        Path | None, typer.Option(help="Instead: a COMPRESSION.json, whose cuts are applied to its teacher again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """One cut of a checkpoint, without distillation."""
    pruned = api.prune(checkpoint, target, axis=axis, remove=remove, tower=tower, data=data, split=split, cuts=cuts)
    if as_json:
        print(json.dumps(pruned.as_dict()))
    else:
        show(pruned)


def inspect(checkpoint: Checkpoint, as_json: AsJson = False) -> None:
    """Towers, widths, cuts and parents of a checkpoint."""
    found = api.inspect(checkpoint)
    if as_json:
        print(json.dumps(found.as_dict(), indent=1))
    else:
        show(found)


def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[str, typer.Option(help="A data set: a directory, s3://bucket/prefix.")],
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "test",
    columns: Columns = [],  # noqa: B006
    metrics: Metrics = [],  # noqa: B006
    template: Annotated[
        str, typer.Option(metavar="auto|never|always", help="Which rows the chat template renders, as in a plan.")
    ] = "auto",
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="The longest answer, for metrics of texts; by default the data says it.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = Evaluation().batch_size,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure speed.")] = True,
    seconds: Annotated[float, typer.Option(help="The most time for measuring speed.")] = Evaluation().seconds,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME]",
            help="Tasks of lm-evaluation-harness, or of lmms-eval if the checkpoint sees pictures.",
        ),
    ] = None,
    include_path: Annotated[Path | None, typer.Option(help="A folder with tasks of your own, for --tasks.")] = None,
    few_shot: Annotated[
        int | None, typer.Option(min=0, help="Solved rows before each, for --tasks; by default as the task says.")
    ] = None,
    harness_python: Annotated[
        Path | None,
        typer.Option(
            metavar="PYTHON",
            help="The Python that has the harness, for --tasks; or name it in LMMPRESS_HARNESS_PYTHON.",
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A finished run whose report shall show the numbers of --tasks.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy by task, by exact answers or other metrics, samples per second and latency of a checkpoint; with --tasks
    benchmarks by others too."""
    found = api.evaluate(
        checkpoint,
        data,
        split=split,
        columns=columns_in(columns),
        metrics=metrics_in(metrics),
        template=template,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        speed=speed,
        seconds=seconds,
        tasks=tasks,
        include_path=include_path,
        few_shot=few_shot,
        harness_python=harness_python,
        run=run,
    )
    if as_json:
        print(json.dumps(found.model_dump(mode="json"), indent=1))
    else:
        show(found)
