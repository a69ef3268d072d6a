"""lmmpress task: one task of a pipeline, as pods run it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lmmpress.cli.shared import out


def task(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The task, such as prepare, due or distill.")],
    arguments: Annotated[str, typer.Option(metavar="JSON|FILE", help="Its arguments, as an object of JSON.")],
    result: Annotated[Path | None, typer.Option(metavar="FILE", help="Where its result goes; else to stdout.")] = None,
    compiled_by: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The lmmpress that made the workflow: refused if unlike ours.")
    ] = None,
) -> None:
    """Make one task of a pipeline: exit code 2 for a fault of the input, 1 for a fault of lmmpress."""
    from lmmpress.tasks.by_name import read_arguments, run_task, write_result

    made = run_task(name, read_arguments(arguments), compiled_by)
    if result is None:
        out.print(json.dumps(made), markup=False)
    else:
        write_result(made, result)
