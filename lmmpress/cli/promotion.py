"""lmmpress trigger promote, roll-back, serving and online: which compressed version is in service, and how it does."""

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmmpress.cli.shared import AsJson, out, say, show
from lmmpress.cli.trigger_shared import SettingsFile, me, open_by, told_of
from lmmpress.errors import UserError

if TYPE_CHECKING:
    from lmmpress.trigger.promotion import Serving, Waiting
    from lmmpress.trigger.trigger import Trigger

Compressed = Annotated[
    str, typer.Argument(metavar="COMPRESSED", help="The registered name of a compressed model, as AntGMM-compressed.")
]
Why = Annotated[str, typer.Option("--why", help="The reason, which is kept.")]
Seen = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION", help="Do nothing unless this version is in service; by default the one at this moment."
    ),
]

online = typer.Typer(no_args_is_help=True, help="The accuracy in production, of original and compressed models.")


def trigger_serving(settings: SettingsFile = None, as_json: AsJson = False) -> None:
    """Show which version of each compressed model is in service."""
    from lmmpress.trigger.promotion import compressed_of, in_service

    trigger = open_by(settings)
    names = [compressed_of(model) for model in trigger.settings.models]
    found = [(name, in_service(trigger, name)) for name in names]
    if as_json:
        told = [
            {"compressed": name, "serving": _told(now.serving), "waiting": _told(now.waiting)} for name, now in found
        ]
        print(json.dumps(told, indent=1))
        return
    for name, now in found:
        if (one := now.serving) is None:
            out.print(f"{name}: no version is in service")
        else:
            since = f" since {one.since:%Y-%m-%d %H:%M} UTC" if one.since else ""
            why = f": {one.why}" if one.why else ""
            out.print(f"{name}: version {one.version} is in service as {one.alias}{since}, by {one.by}{why}")
            out.print(f"  before: {one.before or 'none'}")
        if now.waiting is not None:
            out.print(_line(now.waiting))


def trigger_promote(
    compressed: Compressed,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version to put into service.")],
    why: Why,
    settings: SettingsFile = None,
    comparison: Annotated[
        Path | None, typer.Option(metavar="comparison.json", help="A comparison of this pair, to be kept in the store.")
    ] = None,
    seen: Seen = None,
    as_json: AsJson = False,
) -> None:
    """Put a version of a compressed model into service, if the rule of the settings allows it."""
    from lmmpress.trigger.comparisons import keep, read_comparison
    from lmmpress.trigger.promotion import ANY, Waiting, promote

    trigger = open_by(settings)
    if comparison is not None:
        keep(trigger.objects, read_comparison(_bytes(comparison), str(comparison)), by=me(), at=trigger.clock())
    done = promote(trigger, compressed, version, by=me(), why=why, seen=ANY if seen is None else seen)
    _pin(trigger, compressed)
    _print(done, as_json)
    if isinstance(done, Waiting):
        raise typer.Exit(1)


def trigger_roll_back(
    compressed: Compressed, why: Why, settings: SettingsFile = None, seen: Seen = None, as_json: AsJson = False
) -> None:
    """Put the version before back into service. Nothing forbids this, if there is one."""
    from lmmpress.trigger.promotion import ANY, roll_back

    trigger = open_by(settings)
    done = roll_back(trigger, compressed, by=me(), why=why, seen=ANY if seen is None else seen)
    _pin(trigger, compressed)
    _print(done, as_json)


def _pin(trigger: "Trigger", compressed: str) -> None:
    """Pin what is in service now; the reconciler's next round does it, if this cannot."""
    from lmmpress.trigger.pinning import pin
    from lmmpress.trigger.promotion import original_of

    try:
        pin(trigger, original_of(trigger, compressed)[0])
    except UserError as error:
        say("warning", f"its checkpoint is not yet protected from `lmmpress store rm`: {error.lines[0]}", "yellow")


@online.command("append")
def online_append(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows of production: CSV or JSON lines.")],
    settings: SettingsFile = None,
) -> None:
    """Append rows of production. The same file is counted once, however often it is appended."""
    from lmmpress.trigger.online import append_file

    done = append_file(open_by(settings), file)
    days = f"{done.days[0]}" if len(done.days) == 1 else f"{done.days[0]} to {done.days[-1]}"
    if done.known:
        say("note", f"all rows of {file} were there already ({days})", "dim")
    else:
        out.print(f"{done.rows} rows, {days}")


@online.command("show")
def online_show(
    compressed: Annotated[str | None, typer.Argument(metavar="[COMPRESSED]", help="One compressed model.")] = None,
    settings: SettingsFile = None,
    until: Annotated[
        str | None, typer.Option(metavar="DAY", help="The last of the seven days; by default today.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the last seven days in production: the accuracy of the original and of the compressed model by day."""
    from lmmpress.trigger.drift import table
    from lmmpress.trigger.promotion import compressed_of

    trigger = open_by(settings)
    names = [compressed] if compressed else [compressed_of(model) for model in trigger.settings.models]
    tables = [table(trigger, name, _day(until)) for name in names]
    if as_json:
        print(json.dumps([one.told() for one in tables], indent=1))
    else:
        for one in tables:
            show(one)


def _print(done: "Serving | Waiting", as_json: bool) -> None:
    if as_json:
        print(json.dumps(_told(done), indent=1))
    else:
        out.print(_line(done))


def _line(done: "Serving | Waiting") -> str:
    from lmmpress.trigger.promotion import Waiting

    if isinstance(done, Waiting):
        return (
            f"{done.compressed}: version {done.version} waits for a second person; {done.by} has asked for it on "
            f"{done.since:%Y-%m-%d %H:%M} UTC: {done.why}"
        )
    return f"{done.compressed}: version {done.version} is in service (before: {done.before or 'none'})"


def _told(one: "Serving | Waiting | None") -> object:
    return None if one is None else told_of(one)


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise UserError(f"--until {text}: a day is written as 2026-11-29") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
