"""What the commands share: their options, the one plan that was given, and how results are shown."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmmpress.errors import UserError
from lmmpress.printing.sheet import Grid, Picture, Shown
from lmmpress.printing.terminal import Table, Terminal

if TYPE_CHECKING:
    from lmmpress.tasks.cluster_profile import Profile

out = Terminal()
console = Terminal(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY.KEY=VALUE", help="Change a setting of the plan.")]
Checkpoint = Annotated[
    str,
    typer.Argument(help="A checkpoint: a directory, s3://bucket/prefix, STORE/checkpoints/DIGEST, models:/Name/3."),
]
StoreAddress = Annotated[str, typer.Argument(metavar="ADDRESS", help="A store: a directory or s3://bucket/prefix.")]


PlanFile = Annotated[Path | None, typer.Argument(metavar="PLAN.yaml", help="The plan.")]
ProfileFile = Annotated[Path | None, typer.Option("--cluster", metavar="CLUSTER.yaml", help="The cluster profile.")]
Context = Annotated[str | None, typer.Option("--context", help="A context of the kubeconfig, if not its current one.")]


def one_plan(file: Path | None, built_in: str | None) -> Path | str:
    """The one plan that was given: a file, or the name of a preset."""
    if file is not None and built_in is None:
        return file
    if built_in is not None and file is None:
        return built_in
    raise UserError("give one plan: a PLAN.yaml or a built-in one")


def the_profile(path: Path | None) -> "Profile":
    """What was told of the cluster; where nothing was, the usual."""
    from lmmpress.tasks.cluster_profile import Profile, read_profile

    return Profile() if path is None else read_profile(path)


def say(kind: str, words: str, style: str) -> None:
    """A line on stderr that begins with what it is, such as a warning."""
    console.print(f"{kind}: {words}", style=style)


def show(result: Shown) -> None:
    """Print the lines and tables of a result."""
    for part in result.shown():
        out.print(_table(part) if isinstance(part, Grid) else part)


def _table(grid: Grid) -> Table:
    table = Table(*grid.head)
    for number, row in enumerate(grid.rows):
        cells = ("[picture]" if isinstance(cell, Picture) else cell for cell in row)
        table.add_row(*cells, style="bold" if number in grid.strong else None)
    return table
