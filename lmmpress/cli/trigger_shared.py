"""What the commands of `lmmpress trigger` share: their settings, who calls them, and JSON."""

import getpass
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmmpress.cli.shared import console
from lmmpress.host.extras import needs

if TYPE_CHECKING:
    from lmmpress.doctor.finding import Finding
    from lmmpress.trigger.claims import Claim
    from lmmpress.trigger.lineage import LineageOfVersion
    from lmmpress.trigger.promotion import Serving, Waiting
    from lmmpress.trigger.trigger import Trigger

SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", metavar="TRIGGER.yaml", help="The settings; else those of LMMPRESS_TRIGGER_SETTINGS."),
]


def needs_trigger(*more: str) -> None:
    """Raise UserError if a package is missing that all of these commands need, or one of `more`."""
    for package in ("pydantic_settings", "cronsim", *more):
        needs(package, "lmmpress trigger")


def open_by(settings: Path | None, make: bool = True) -> "Trigger":
    """The trigger of a file of settings. Without `make`, a store that is missing is not made."""
    needs_trigger()
    from lmmpress.trigger.settings import read_settings
    from lmmpress.trigger.trigger import open_trigger

    return open_trigger(read_settings(settings), make)


def check_trigger(settings: Path | None) -> "list[Finding]":
    """What the trigger of a file of settings lacks."""
    needs_trigger("authlib")
    from lmmpress.trigger.check import check_file

    with console.status("looking") as shown:
        return check_file(settings, lambda name: shown.update(f"looking at {name}"))


def me() -> str:
    """The user of this shell."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user id without a name
        return "somebody"


def told_of(one: "Claim | Serving | Waiting | LineageOfVersion") -> dict[str, Any]:
    """A record for programs: only what JSON knows, times as ISO 8601 writes them."""
    return json.loads(json.dumps(asdict(one), default=lambda value: value.isoformat()))  # type: ignore[no-any-return]
