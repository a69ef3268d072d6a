"""lmmpress trigger: start re-compression when a registered model changes."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from lmmpress.cli import lineage, promotion
from lmmpress.cli.findings import show_findings
from lmmpress.cli.shared import AsJson, out, say
from lmmpress.cli.trigger_shared import SettingsFile, check_trigger, me, needs_trigger, open_by, told_of
from lmmpress.errors import UserError
from lmmpress.progress.log import log_form

if TYPE_CHECKING:
    from lmmpress.trigger.act_tags import Doing
    from lmmpress.trigger.claims import Claim
    from lmmpress.trigger.trigger import Trigger

PAUSE = 5.0  # seconds between two looks at a run that is waited for


app = typer.Typer(no_args_is_help=True, help="Start re-compression when a registered model changes.")
app.command("serving")(promotion.trigger_serving)
app.command("promote")(promotion.trigger_promote)
app.command("roll-back")(promotion.trigger_roll_back)
app.command("lineage")(lineage.trigger_lineage)
app.add_typer(promotion.online, name="online")
Key = Annotated[str, typer.Argument(metavar="CLAIM", help="The key of a claim, or its beginning, or its run's name.")]
Why = Annotated[str, typer.Option("--why", help="The reason, which is kept with the claim.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the run; exit code 1 if it does not succeed.")]


@app.command("ls")
def trigger_ls(
    settings: SettingsFile = None,
    model: Annotated[str | None, typer.Option(help="Only the claims of this model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show all claims: which questions are being answered, and which have been."""
    claims = open_by(settings, make=False).claims.all(model)
    if as_json:
        print(json.dumps([_told(claim) for claim in claims], indent=1))
        return
    for claim in claims:  # no table: a terminal would cut the name, which other commands take
        question, last = claim.question, claim.events[-1]
        what = f"{question.model} {question.version} by plan {question.plan_name}: {claim.state.value}"
        since = f"since {last.at:%Y-%m-%d %H:%M} UTC, asked by {claim.by} ({claim.cause.value})"
        out.print(f"{claim.run}  {what} {since}" + (f": {claim.note}" if claim.note else ""))
    if not claims:
        out.print("no claims")


@app.command("fire")
def trigger_fire(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A registered model that the settings watch.")],
    settings: SettingsFile = None,
    plan: Annotated[str | None, typer.Option(help="One of the model's plans, if not its default one.")] = None,
    why: Why = "",
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Have a model's version compressed now. A question that was asked before is not asked again."""
    from lmmpress.trigger.claims import Cause
    from lmmpress.trigger.fire import Refused, fire

    trigger = open_by(settings)
    with _acting(trigger, "fire", why, model) as doing:
        answer = fire(trigger, model, by=me(), cause=Cause.shell, why=why, plan=plan)
        doing.came_to(answer)
    if isinstance(answer, Refused):
        if as_json:
            print(json.dumps({"refused": answer.reason}))
        else:
            say("refused", answer.reason, "yellow")
        raise typer.Exit(1)
    _carry_on(trigger, answer, wait, as_json)


@app.command("retry")
def trigger_retry(
    key: Key, settings: SettingsFile = None, why: Why = "", wait: Wait = False, as_json: AsJson = False
) -> None:
    """Try a question again whose run failed, was cancelled or was lost."""
    from lmmpress.trigger.fire import retry

    trigger = open_by(settings)
    asked = _claim(trigger, key)
    with _acting(trigger, "retry", why, asked.question.model, asked) as doing:
        claim = retry(trigger, asked.key, by=me(), why=why)
        doing.said(f"claim {claim.key} is {claim.state}, attempt {claim.attempt}")
    _carry_on(trigger, claim, wait, as_json)


@app.command("cancel")
def trigger_cancel(
    key: Key, settings: SettingsFile = None, why: Why = "", wait: Wait = False, as_json: AsJson = False
) -> None:
    """Cancel the run of a claim."""
    from lmmpress.trigger.fire import cancel

    trigger = open_by(settings)
    asked = _claim(trigger, key)
    with _acting(trigger, "cancel", why, asked.question.model, asked) as doing:
        claim = cancel(trigger, asked.key, by=me(), why=why)
        doing.said(f"claim {claim.key} is to be cancelled")
    _carry_on(trigger, claim, wait, as_json, good="cancelled")


@app.command("reconcile")
def trigger_reconcile(settings: SettingsFile = None, as_json: AsJson = False) -> None:
    """Compare the registry with the claims once, and carry on every open claim: for a cron. Exit code 1 if something
    could not be done."""
    from lmmpress.trigger.reconcile import reconcile

    done = reconcile(open_by(settings))
    if as_json:
        moved, fired = [_told(claim) for claim in done.moved], {name: _told(one) for name, one in done.fired.items()}
        refused = {name: one.reason for name, one in done.refused.items()}
        told = {"elsewhere": done.elsewhere, "fired": fired, "refused": refused, "moved": moved, "faults": done.faults}
        print(json.dumps(told, indent=1))
    elif done.elsewhere:
        out.print("another process works on the claims now; nothing was done")
    else:
        for claim in done.moved:
            out.print(_line(claim))
        for name, refused_one in done.refused.items():
            out.print(f"{name}: not started: {refused_one.reason}")
        if not done.moved and not done.faults:
            out.print("nothing to do")
        for fault in done.faults:
            say("error", fault, "red")
    if done.faults:
        raise typer.Exit(1)


@app.command("check")
def trigger_check(
    settings: SettingsFile = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings and unknown results too.")] = False,
    as_json: AsJson = False,
) -> None:
    """What the trigger lacks, and how to add it: settings, store, clocks, MLflow, webhook, models, plans, clusters."""
    show_findings(check_trigger(settings), as_json, strict)


@app.command("serve")
def trigger_serve(settings: SettingsFile = None) -> None:
    """Serve MLflow's webhook, the REST interface and metrics, and reconcile every minute, until told to stop."""
    needs_trigger("fastapi", "uvicorn", "prometheus_client", "authlib")
    from lmmpress.trigger.server.serve import serve

    serve(open_by(settings), log_form())


def _claim(trigger: "Trigger", given: str) -> "Claim":
    """The one claim whose key begins with what was given, or whose run has that name."""
    found = [one for one in trigger.claims.all() if one.run == given or (given and one.key.startswith(given))]
    if len(found) != 1:
        known = "several claims begin" if found else "no claim begins"
        raise UserError(f"{known} with {given!r}, and no run has that name; `lmmpress trigger ls` shows all")
    return found[0]


@contextmanager
def _acting(trigger: "Trigger", what: str, why: str, model: str, claim: "Claim | None" = None) -> "Iterator[Doing]":
    """Write down what the user of this shell does, and what came of it, in the store and in MLflow."""
    from lmmpress.trigger.act_tags import telling
    from lmmpress.trigger.acts import Act

    at, key = trigger.clock().timestamp(), claim.key if claim else None
    act = Act(at=at, by=me(), role="operator", what=what, model=model, claim=key, why=why)
    with telling(trigger, act) as doing:
        if claim is not None:
            doing.about_claim(claim)
        yield doing
    if doing.untold:
        say("warning", f"{doing.untold}; the store has what was done", "yellow")


def _carry_on(trigger: "Trigger", claim: "Claim", wait: bool, as_json: bool, good: str = "succeeded") -> None:
    """Carry a claim on, to its end if it is waited for, and print it. Exit code 1 if that is not a good one."""
    from lmmpress.trigger.carry_on import carry_on, current
    from lmmpress.trigger.claims import AGAIN
    from lmmpress.trigger.reconcile import this_process

    asked_before = claim.state in AGAIN
    tell: Callable[[str], None] = (lambda line: None) if as_json else out.print
    told = None
    while True:
        try:
            claim = carry_on(trigger, claim, this_process())
        except UserError as error:
            say("warning", f"{error.lines[0]}; the claim is kept, and the reconciler's next round goes on", "yellow")
            claim = current(trigger, claim.key)
        if told != claim.state:
            told = claim.state
            tell(_line(claim))
        if not (wait and claim.is_open):
            break
        time.sleep(PAUSE)
    if asked_before and not as_json:
        say("note", f"this was asked before; to try it again: lmmpress trigger retry {claim.run}", "dim")
    if as_json:
        print(json.dumps(_told(claim), indent=1))
    if wait and claim.state.value != good:
        raise typer.Exit(1)


def _line(claim: "Claim") -> str:
    question = claim.question
    link = claim.sent.link if claim.sent else ""
    said = "; ".join(part for part in (claim.note if not claim.is_open else "", link) if part)
    return f"{question.model} {question.version}: {claim.state.value}, run {claim.run}" + (f": {said}" if said else "")


def _told(claim: "Claim") -> dict[str, object]:
    """A claim for programs."""
    return told_of(claim) | {"run": claim.run}
