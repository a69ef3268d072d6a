"""What the commands share: their options, their plan, and how numbers are written."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmmpress.errors import UserError
from lmmpress.plan import Plan, parse_plan, read_plan
from lmmpress.presets import preset
from lmmpress.printing.terminal import Terminal

if TYPE_CHECKING:
    from lmmpress.tasks.profile import Profile

out = Terminal()
console = Terminal(stderr=True)

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY.KEY=VALUE", help="Change a setting of the plan.")]
Checkpoint = Annotated[
    str,
    typer.Argument(help="A checkpoint: a directory, s3://bucket/prefix, STORE/checkpoints/DIGEST, models:/Name/3."),
]
StoreAddress = Annotated[str, typer.Argument(metavar="ADDRESS", help="A store: a directory or s3://bucket/prefix.")]


class Granularity(StrEnum):
    """What one task of a pipeline does: a part of a `step`, or a whole `stage`."""

    step = "step"
    stage = "stage"


PlanFile = Annotated[Path | None, typer.Argument(metavar="PLAN.yaml", help="The plan.")]
ProfileFile = Annotated[Path | None, typer.Option("--cluster", metavar="CLUSTER.yaml", help="The cluster profile.")]
Context = Annotated[str | None, typer.Option("--context", help="A context of the kubeconfig, if not its current one.")]


def the_plan(file: Path | None, built_in: str | None, overrides: list[str], with_data: bool = True) -> Plan:
    """The one plan that was given."""
    if (file is None) == (built_in is None):
        raise UserError("give one plan: a PLAN.yaml or a built-in one")
    if file is not None:
        return read_plan(file, tuple(overrides))
    assert built_in is not None
    return parse_plan(preset(built_in, with_data), tuple(overrides), where=f"preset {built_in}")


def the_profile(path: Path | None) -> "Profile":
    """What was told of the cluster; where nothing was, the usual."""
    from lmmpress.tasks.profile import Profile, read_profile

    return Profile() if path is None else read_profile(path)


def say(kind: str, words: str, style: str) -> None:
    """A line on stderr that begins with what it is, such as a warning."""
    console.print(f"{kind}: {words}", style=style)


def opened(address: str) -> Path:
    """A local directory with the files of the checkpoint at an address."""
    from lmmpress.store import open_checkpoint
    from lmmpress.tracking.registry import located

    return open_checkpoint(located(address))


def local(path: Path) -> Path:
    """A path of this machine. Raises UserError for an address: a folder of that name is not what was meant."""
    if _ADDRESS.match(str(path)):
        raise UserError(f"{path}: this command writes to a folder of this machine; `store cp` writes to buckets")
    return path


def in_bytes(number: int) -> str:
    """A number of bytes."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number} B"


def faster(gain: float) -> str:
    """A gain of speed; a loss is told as one."""
    return f"{gain:.1f}x faster" if gain >= 1 else f"{1 / gain:.1f}x slower"


def in_short(number: int) -> str:
    """A number of parameters."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3f} {letter}" if size == 1e9 else f"{number / size:.2f} {letter}"
    return str(number)
