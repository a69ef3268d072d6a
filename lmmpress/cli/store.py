"""lmmpress store: what a store holds, whether it is whole, cleaning up, removing runs, copying."""

import json
import re
from typing import Annotated, Any

import typer

from lmmpress import api
from lmmpress.cli.shared import AsJson, StoreAddress, out
from lmmpress.errors import UserError
from lmmpress.printing.numbers import in_bytes
from lmmpress.printing.terminal import Table

app = typer.Typer(
    no_args_is_help=True, help="What a store holds, whether it is whole, cleaning up, removing runs, copying."
)
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")]


@app.command("ls")
def store_ls(
    address: StoreAddress,
    run_key: Annotated[str | None, typer.Option("--run", help="Only this run: its key, or how it begins.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a store holds: runs with their decisions, checkpoints, and how many bytes."""
    from lmmpress.store.address import existing_store
    from lmmpress.store.housekeeping import list_store

    held = list_store(existing_store(address), run_key)
    if as_json:
        print(held.model_dump_json(indent=1))
        return
    for listed in held.runs:
        working = f", {listed.working} works on it" if listed.working else ""
        out.print(f"run {listed.run_key[:12]}{working}")
        steps = Table("step", "decision", "from", "checkpoint", "accuracy")
        for step in listed.steps:
            steps.add_row(*_cells(step))
        out.print(steps)
    table = Table("checkpoint", "files", "size", "not in one above")
    for checkpoint in held.checkpoints:
        sizes = (in_bytes(checkpoint.bytes), in_bytes(checkpoint.own_bytes))
        table.add_row(checkpoint.digest[:12], str(checkpoint.files), *sizes)
    out.print(table)
    out.print(
        f"{in_bytes(held.bytes)} in {held.blobs} blobs, {held.tensors} files of tensors, {held.records} records",
    )
    for fault in held.damaged:
        out.print(f"{fault.name} {fault.fault}")
    if held.damaged:
        out.print(f"{address}: what is damaged is set aside by `lmmpress store verify --discard`")


def _cells(step: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table of decisions, also for a damaged or unknown history entry."""
    index, accuracy = step.get("index"), step.get("accuracy")
    number = str(index + 1) if isinstance(index, int) else "?"
    shown = f"{accuracy:.4f}" if isinstance(accuracy, float) else "" if accuracy is None else str(accuracy)[:12]
    named = (str(step.get(key) or "")[:12] for key in ("decision", "parent", "checkpoint"))
    jump = step.get("jump")
    over = f", jump over {len(jump)}" if isinstance(jump, list) and jump else ""
    return (f"{str(step.get('stage', '?'))[:12]} {number}{over}", *named, shown)


@app.command("verify")
def store_verify(
    address: StoreAddress,
    discard: Annotated[
        bool, typer.Option("--discard", help="Set damaged objects aside, with all that need them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every blob and check that it still matches its name; exit code 2 if one does not."""
    from lmmpress.store.address import existing_store
    from lmmpress.store.housekeeping import Discarded, discard_faults, verify_store

    found_store = existing_store(address)
    done = discard_faults(found_store) if discard else Discarded(verify_store(found_store), [], {})
    if as_json:
        faults = [fault.model_dump() for fault in done.faults]
        print(json.dumps({"faults": faults, "discarded": done.removed, "set_aside": done.set_aside}, indent=1))
    else:
        for fault in done.faults:
            needed = f" (needed by {', '.join(fault.needed_by)})" if fault.needed_by else ""
            out.print(f"{fault.name}: {fault.fault}{needed}")
        for name in done.removed:
            aside = done.set_aside.get(name)
            out.print(f"set aside {name} as {aside}" if aside else f"removed {name}")
    if done.faults and not discard:
        raise UserError(
            f"{address}: {len(done.faults)} faults; --discard removes what is damaged and what needs it; after that a "
            "run resumed with --resume, or a copy from another store, makes it whole"
        )
    if not done.faults and not as_json:
        out.print("every file matches its name")


@app.command("gc")
def store_gc(
    address: StoreAddress,
    dry_run: DryRun = False,
    grace: Annotated[float, typer.Option(min=0, help="Hours to keep a file that no checkpoint names.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Remove files that no checkpoint names; refused while any run is worked on."""
    from lmmpress.store.address import existing_store
    from lmmpress.store.housekeeping import collect_garbage

    found = collect_garbage(existing_store(address), 3600 * grace, dry_run)
    if as_json:
        shown = {"names": [entry.name for entry in found.entries], "bytes": found.bytes, "spared": found.spared}
        print(json.dumps(shown | {"removed": not dry_run}, indent=1))
        return
    for entry in found.entries:
        out.print(entry.name)
    out.print(
        f"{'would remove' if dry_run else 'removed'} {len(found.entries)} files, {in_bytes(found.bytes)}; "
        f"{found.spared} younger than {grace:g} h stay",
    )


@app.command("policy")
def store_policy(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="A store in a bucket: s3://bucket/prefix.")],
    read: Annotated[
        list[str], typer.Option("--read", metavar="ADDRESS", help="A read-only address (model, data); repeat it.")
    ] = [],  # noqa: B006
    principal: Annotated[
        str | None, typer.Option(metavar="ARN", help="Print a bucket policy for this user, in Ceph's form.")
    ] = None,
) -> None:
    """Print the smallest policy document that keys need for a store in a bucket (AWS, MinIO, Ceph)."""
    from lmmpress.store.rights import place, policy

    for one in (address, *read):
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^*?@]*)?", one):
            raise UserError("a policy is made for s3://bucket/prefix")
    if principal and len({place(one).bucket for one in (address, *read)}) > 1:
        raise UserError("a bucket policy holds for one bucket only: print one for each bucket")
    print(json.dumps(policy([place(address)], [place(one) for one in read], principal), indent=2))


@app.command("rm")
def store_rm(
    address: StoreAddress,
    run_key: Annotated[str, typer.Argument(metavar="RUN", help="The key of a run, or how it begins.")],
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also what is still needed: in service, or by a claim of the trigger.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a run and what no other run uses; refused while any run is worked on, or this one is still needed."""
    from lmmpress.store.address import existing_store
    from lmmpress.store.housekeeping import remove_run

    removal = remove_run(existing_store(address), run_key, dry_run, force)
    if as_json:
        print(json.dumps(removal.model_dump() | {"removed": not dry_run}, indent=1))
        return
    for name in removal.names:
        out.print(name)
    for digest, users in removal.kept.items():
        why = f"run {', '.join(key[:12] for key in users)} uses it" if users else "this run did not bring it"
        out.print(f"checkpoint {digest[:12]} stays: {why}")
    what = f"run {removal.run_key[:12]}: {len(removal.names)} objects, {in_bytes(removal.bytes)}"
    out.print(f"{'would remove' if dry_run else 'removed'} {what}")


@app.command("record")
def store_record(
    address: StoreAddress,
    run: Annotated[str, typer.Argument(metavar="RUN", help="The key of a run, or how it begins.")],
) -> None:
    """Record a pipeline's run in MLflow, if MLflow did not answer while it was made."""
    from lmmpress.tasks.late_lineage import record_run

    steps, ended = record_run(address, run)
    out.print(f"recorded: {steps} steps{', and the result' if ended else '; the run has not ended'}")


@app.command("cp")
def store_cp(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A store, or a checkpoint: a directory, s3://..., ...")],
    target: Annotated[str, typer.Argument(metavar="TO", help="A store; created if missing.")],
    with_trigger: Annotated[
        bool, typer.Option("--with-trigger", help="Also claims, acts, what was in service, comparisons, notices.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy a store, or one checkpoint, into another store; objects that are already there are not sent."""
    from lmmpress.store import open_store
    from lmmpress.store.address import existing_store, holds_checkpoint, is_store
    from lmmpress.store.housekeeping import copy_checkpoint, copy_store, refuse_no_checkpoint

    # both addresses are checked before the target is created
    if holds_checkpoint(target):
        raise UserError(f"{target} is a checkpoint, and no store; name another place")
    checkpoint = None if is_store(source) else api.open_checkpoint(source)
    if checkpoint:
        refuse_no_checkpoint(checkpoint)
        if with_trigger:
            raise UserError(f"{source} is a checkpoint: --with-trigger goes with a store")
    into = open_store(target)
    moved = copy_checkpoint(checkpoint, into) if checkpoint else copy_store(existing_store(source), into, with_trigger)
    if as_json:
        print(moved.model_dump_json())
        return
    for address in moved.addresses:
        out.print(address)
    also = f", {moved.of_the_trigger} objects of the trigger" if with_trigger else ""
    out.print(f"{in_bytes(moved.sent)} sent, {in_bytes(moved.there)} were there{also}")
