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
FromPreset = Annotated[
    str | None,
    typer.Option("--preset", metavar="NAME", help="A built-in plan: sample, sample-towers, sample-hard or paper."),
]
Sample = Annotated[bool, typer.Option("--sample", help="The same as --preset sample.")]
ProfileFile = Annotated[Path | None, typer.Option("--cluster", metavar="CLUSTER.yaml", help="The cluster profile.")]
Context = Annotated[str | None, typer.Option("--context", help="A context of the kubeconfig, if not its current one.")]


def one_plan(file: Path | None, from_preset: str | None, sample: bool) -> Path | str:
    """The plan that the user gave: a file, or the name of a preset."""
    given = [one for one in (file, from_preset, "sample" if sample else None) if one is not None]
    if len(given) == 1:
        return given[0]
    raise UserError("give one plan: a PLAN.yaml or a built-in one")


def the_profile(path: Path | None) -> "Profile":
    """The cluster profile that the user gave, or the default one."""
    from lmmpress.tasks.cluster_profile import Profile, read_profile

    return Profile() if path is None else read_profile(path)


def say(kind: str, words: str, style: str) -> None:
    """Print a line on stderr that begins with its kind, such as `warning`."""
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
