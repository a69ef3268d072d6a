"""lmmpress report: the page of a run."""

from pathlib import Path
from typing import Annotated

import typer

from lmmpress import api
from lmmpress.cli.shared import out


def report(directory: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
    """Write report.html anew from a run's result.json."""
    out.print(str(api.report(directory)), highlight=False)
