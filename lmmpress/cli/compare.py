"""lmmpress compare: two checkpoints on the same rows."""

from pathlib import Path
from typing import Annotated

import typer

from lmmpress import api
from lmmpress.cli.by_name import Columns, columns_in
from lmmpress.cli.shared import AsJson, Checkpoint, out, show
from lmmpress.plan import Evaluation


def compare(
    a: Checkpoint,
    b: Checkpoint,
    data: Annotated[str, typer.Option(help="A data set: a directory, s3://bucket/prefix.")],
    target: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder for comparison.html and comparison.json.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split to compare on; by default test, else the rows of gate or validation.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="The most rows to compare on, evenly over the split.")] = None,
    columns: Columns = [],  # noqa: B006
    tasks: Annotated[list[str], typer.Option(metavar="NAME", help="Only rows of this task; may be repeated.")] = [],  # noqa: B006
    batch_size: Annotated[int, typer.Option(min=1)] = Evaluation().batch_size,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure speed and energy.")] = True,
    seconds: Annotated[float, typer.Option(help="The most time for measuring speed.")] = Evaluation().seconds,
    watts: Annotated[
        float | None, typer.Option(help="The device's power, for an estimate of the energy where nothing measures it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Two checkpoints, A and B, on the same rows: exact answers, size, memory, speed, energy."""
    found = api.compare(
        a,
        b,
        data,
        split=split,
        rows=rows,
        columns=columns_in(columns),
        tasks=tasks,
        batch_size=batch_size,
        speed=speed,
        seconds=seconds,
        watts=watts,
        out=target,
    )
    if as_json:
        print(found.model_dump_json(indent=1))
    else:
        show(found)
        if target is not None:
            out.print(str(target / "comparison.html"))
