"""lmmpress trigger lineage: from a compressed version back to its data, and to who has asked for it and why."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from lmmpress.cli.shared import AsJson, out
from lmmpress.cli.trigger_shared import SettingsFile, open_by, told_of

if TYPE_CHECKING:
    from lmmpress.tracking.walk import WalkedStep
    from lmmpress.trigger.lineage import LineageOfVersion

_WHEN = "%Y-%m-%d %H:%M UTC"


def trigger_lineage(
    compressed: Annotated[str, typer.Argument(metavar="COMPRESSED", help="The registered name of a compressed model.")],
    settings: SettingsFile = None,
    version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="One of its versions; by default the one in service.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """From a compressed version back to its data: checkpoint, run, steps, original, rows, and who has done what, and
    why. Exit code 1 if a link does not lead on."""
    from lmmpress.trigger.lineage import lineage_of

    found = lineage_of(open_by(settings, make=False), compressed, version)
    if as_json:
        print(json.dumps(told_of(found), indent=1))
    else:
        for line in _lines(found):
            out.print(line)
    if found.gaps:
        raise typer.Exit(1)


def _lines(found: "LineageOfVersion") -> Iterator[str]:
    yield f"{found.compressed} version {found.version}"
    if (there := found.serving) is not None:
        since = f" since {there.since:{_WHEN}}" if there.since else ""
        yield f"  in service   as {there.alias}{since}, by {there.by}" + (f": {there.why}" if there.why else "")
    yield from (f"  compared     {one}" for one in found.comparisons)
    if found.checkpoint:
        yield f"  checkpoint   {found.checkpoint} at {found.address}"
    if (way := found.way) is not None:
        ended = f" {way.ended:{_WHEN}}" if way.ended else ""
        yield f"  run          {way.run} in MLflow, {way.status}{ended}; run key {found.run_key}"
        yield from (f"  step         {_step(one)}" for one in way.steps)
        yield from (f"  rolled back  {_step(one)}" for one in way.aside)
    if found.original:
        name = way.tags.get("lmmpress.model", "") if way else ""
        yield f"  original     {found.original}" + (f", {name}" if name else "")
    for used in way.data if way else ():
        rows = f", {used.rows} rows" if used.rows is not None else ""
        yield f"  data         {used.split} as {used.roles}{rows}: digest {used.digest}"
    if (claim := found.claim) is not None:
        why = f": {claim.why}" if claim.why else ""
        asked = f"asked by {claim.by} ({claim.cause}) on {claim.events[0].at:{_WHEN}}{why}"
        yield f"  claim        {claim.run}, {claim.state}, {asked}"
    yield from (f"  act          {one}" for one in found.acts)
    yield from (f"  gap          {one}" for one in found.gaps)


def _step(step: "WalkedStep") -> str:
    measured = "" if step.accuracy is None else f", accuracy {step.accuracy:.4f}"
    made = f"{step.checkpoint[:12]} <- " if step.checkpoint else ""
    return f"{made}{step.parent[:12]}  {step.name}: {step.decision}{measured}, {step.reason}"
