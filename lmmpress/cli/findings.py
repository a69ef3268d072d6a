"""Findings of checks as a table, or as JSON: for `lmmpress doctor` and `lmmpress trigger check`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from lmmpress.cli.shared import out
from lmmpress.printing.terminal import Table

if TYPE_CHECKING:
    from lmmpress.doctor.finding import Finding

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "unknown": "magenta"}


def show_findings(found: "list[Finding]", as_json: bool, strict: bool) -> None:
    """Print findings; exit code 1 if one failed, with `strict` also if one is a warning or unknown."""
    counts = {status: sum(one.status == status for one in found) for status in COLOURS}
    if as_json:
        print(json.dumps({"findings": [asdict(one) for one in found], "counts": counts}, indent=1))
    else:
        out.print(_table(found))
        for one in found:  # outside of the table, so that a command can be copied
            if one.mend and one.status != "ok":
                out.print(Text(f"{one.check}: ", style=COLOURS[one.status]).append(one.mend, style="bold"))
        out.print(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    if counts["failed"] or (strict and (counts["warning"] or counts["unknown"])):
        raise typer.Exit(1)


def _table(found: "list[Finding]") -> Table:
    table = Table("check", "", "what was found")
    for one in found:
        table.add_row(Text(one.check), Text(one.status, style=COLOURS[one.status]), Text(one.said))
    return table
