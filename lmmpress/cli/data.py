"""lmmpress data: what is in a data set, and what is wrong with its rows."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lmmpress import api
from lmmpress.cli.by_name import Columns, columns_in
from lmmpress.cli.shared import AsJson, show


def data(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A data set: a directory, s3://bucket/prefix.")],
    fix: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write the rows without a fault to a new folder, as an imagefolder."),
    ] = None,
    columns: Columns = [],  # noqa: B006
    splits: Annotated[
        list[str], typer.Option("--split", metavar="NAME", help="Only rows of this split; may be repeated.")
    ] = [],  # noqa: B006
    checkpoint: Annotated[
        str | None, typer.Option(help="Count tokens as this checkpoint does, and find rows that do not fit it.")
    ] = None,
    turns: Annotated[
        str, typer.Option(metavar="last|all", help="Which answers it learns from, as in a plan, for --checkpoint.")
    ] = "last",
    template: Annotated[
        str,
        typer.Option(
            metavar="auto|never|always", help="Which rows its chat template renders, as in a plan, for --checkpoint."
        ),
    ] = "auto",
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Rows may have no answer.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 2 for warnings too.")] = False,
    as_json: AsJson = False,
) -> None:
    """What is in a data set, and every fault by row. Exit code 2 if a row has a fault."""
    found = api.inspect_data(
        directory,
        columns=columns_in(columns),
        splits=splits,
        unlabelled=unlabelled,
        checkpoint=checkpoint,
        turns=turns,
        template=template,
        fix=fix,
    )
    if as_json:
        print(json.dumps(found.as_dict(), indent=1))
    else:
        show(found)
    if found.faults or (strict and found.warnings):
        raise typer.Exit(2)
