"""The command line. Each command reads its arguments, calls the library once, and prints what came of it."""

import errno
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lmmpress.errors import UserError
from lmmpress.plan import Axis, Evaluation, Importance, Plan, parse_plan, read_plan
from lmmpress.presets import preset

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Compress large multimodal models in stages: prune a little, distil, measure, keep what stays within alpha.",
    epilog="--debug, anywhere, shows the traceback of an error.",
    pretty_exceptions_enable=False,
)
store = typer.Typer(no_args_is_help=True, help="What a store holds, whether it is whole, cleaning up, copying.")
app.add_typer(store, name="store")
out = Console(soft_wrap=True, markup=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY.KEY=VALUE", help="Change a setting of the plan.")]
Checkpoint = Annotated[
    str,
    typer.Argument(help="A checkpoint: a directory, s3://bucket/prefix, STORE/checkpoints/DIGEST, models:/Name/3."),
]
StoreAddress = Annotated[str, typer.Argument(metavar="ADDRESS", help="A store: a directory or s3://bucket/prefix.")]
PlanFile = Annotated[Path | None, typer.Argument(metavar="PLAN.yaml", help="The plan.")]


class Engine(StrEnum):
    local = "local"


@app.command()
def run(
    directory: Annotated[Path, typer.Option("--out", help="Where the result goes.")],
    plan_file: PlanFile = None,
    sample: Annotated[bool, typer.Option("--sample", help="Compress the built-in sample model.")] = False,
    engine: Annotated[Engine, typer.Option(help="Where the steps run.")] = Engine.local,
    resume: Annotated[bool, typer.Option("--resume", help="Carry on what --out holds.")] = False,
    overrides: Overrides = [],  # noqa: B006 (typer reads the default, nothing changes it)
    as_json: AsJson = False,
) -> None:
    """Compress a model: result.json, report.html, compressed/ and the lineage in mlflow.db."""
    plan = _plan(plan_file, "sample" if sample else None, overrides)
    name = _name_of(plan.model)
    plan = plan.model_copy(update={"model": _looked_up(plan.model)})
    from lmmpress.compression import PLAN, RESULT, compress
    from lmmpress.lineage import Lineage, local_store
    from lmmpress.report import write_report

    recorder = Lineage(local_store(directory), model_name=name)
    try:
        result = compress(plan, directory, recorder, resume)
    except KeyboardInterrupt:
        recorder.interrupted(None)
        raise UserError(f"stopped; carry on with the same command and --resume ({directory / PLAN} is kept)") from None
    except Exception as error:
        recorder.interrupted(error)
        raise
    write_report(result, plan, directory / "report.html")
    if as_json:
        print((directory / RESULT).read_text("utf-8"))
    else:
        _print_result(result.model_dump())
        out.print(f"report: {directory / 'report.html'}\ncheckpoint: {directory / 'compressed'}", highlight=False)


@app.command()
def plan(
    plan_file: PlanFile = None,
    from_preset: Annotated[str | None, typer.Option("--preset", help="A built-in plan: sample or paper.")] = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """The sizes after every step, from configs alone, without weights."""
    wanted = _plan(plan_file, from_preset, overrides, with_data=False)
    from lmmpress.lmm.read_anatomy import anatomy_of, read_config
    from lmmpress.pruning.predict import predict

    sizes = predict(anatomy_of(read_config(_opened(wanted.model))), wanted)
    if as_json:
        print(json.dumps([vars(size) for size in sizes], indent=1))
        return
    table = Table("step", "tower", "removes", *(axis.value for axis in Axis), "tower parameters", "all parameters")
    for size in sizes:
        label, removed = (f"{size.stage} {size.index + 1}", str(size.removed)) if size.removed else (size.stage, "")
        for number, tower in enumerate(size.tower.split(", ")):
            widths = [str(size.widths[f"{tower}.{axis}"]) for axis in Axis]
            counts = [_count(size.parameters_by_tower[tower]), _count(sum(size.parameters_by_tower.values()))]
            table.add_row("" if number else label, tower, removed, *widths, *counts)
    out.print(table)


@app.command()
def prune(
    checkpoint: Checkpoint,
    target: Annotated[Path, typer.Option("--output", "-o", help="The new checkpoint directory.")],
    axis: Annotated[Axis | None, typer.Option(help="What becomes smaller.")] = None,
    remove: Annotated[int | None, typer.Option(help="How much goes; for attention the total over all heads.")] = None,
    tower: Annotated[str, typer.Option(help="vision, qformer or language.")] = "language",
    data: Annotated[Path | None, typer.Option(help="Rows to score with; a block cut needs none.")] = None,
    split: Annotated[str, typer.Option(help="The split of the data that scores.")] = "score",
    cuts: Annotated[
        Path | None, typer.Option(help="Instead: a COMPRESSION.json, whose cuts are made again of its teacher.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """One cut of a checkpoint, without distillation."""
    from lmmpress.lmm.anatomy import count_by_tower
    from lmmpress.lmm.checkpoint import read_checkpoint
    from lmmpress.pruning.once import prune_checkpoint, prune_like

    source = _opened(checkpoint)
    if cuts is not None and axis is None and remove is None:
        made = prune_like(source, target, cuts)
    elif cuts is None and axis is not None and remove is not None:
        settings = Importance(accumulation="batch")
        made = [prune_checkpoint(source, target, tower, axis, remove, data, split, settings)]
    else:
        raise UserError("say what to cut: --axis and --remove, or --cuts COMPRESSION.json")
    before, after = (sum(count_by_tower(read_checkpoint(path)).values()) for path in (source, target))
    if as_json:
        told = [cut.model_dump(mode="json") for cut in made]
        print(json.dumps({"checkpoint": str(target), "cut": told[-1], "cuts": told, "parameters": after}))
    else:
        out.print(f"{target}: {_count(before)} -> {_count(after)} parameters", highlight=False)


@app.command()
def inspect(checkpoint: Checkpoint, as_json: AsJson = False) -> None:
    """Towers, widths, cuts and parents of a checkpoint."""
    from lmmpress.lmm.anatomy import count_by_tower
    from lmmpress.lmm.apart import is_apart
    from lmmpress.lmm.checkpoint import read_checkpoint, read_record
    from lmmpress.lmm.digest import digest_checkpoint

    directory = _opened(checkpoint)
    anatomy = read_checkpoint(directory)
    counts = count_by_tower(anatomy)
    widths = {
        name: {axis.value: body.width for axis, body in tower.axes.items()} for name, tower in anatomy.towers.items()
    }
    record = read_record(directory) or {}
    history = [
        {"made_from": entry.get("pruned_from") or entry.get("distilled_from")}
        | ({key: entry["cut"][key] for key in ("tower", "axis", "amount")} if "cut" in entry else {"distilled": True})
        for entry in record.get("history", [])
    ]
    facts: dict[str, Any] = {
        "checkpoint": digest_checkpoint(directory),
        "family": anatomy.family,
        "teacher": record.get("teacher"),
        "loads_with": "trust_remote_code=True" if is_apart(anatomy.config) else "plain transformers",
    }
    if as_json:
        told = {"parameters_by_tower": counts, "widths": widths, "history": history, "plan": record.get("plan")}
        print(json.dumps(facts | told, indent=1))
        return
    out.print(
        f"{anatomy.family} checkpoint {facts['checkpoint'][:12]}, loads with {facts['loads_with']}", highlight=False
    )
    table = Table("tower", *(axis.value for axis in Axis), "parameters")
    for name, tower_widths in widths.items():
        table.add_row(name, *map(str, tower_widths.values()), _count(counts[name]))
    for name in ("embeddings", "heads", "rest"):
        table.add_row(name, *("" for _ in Axis), _count(counts[name]))
    out.print(table)
    if history:
        out.print(f"made from teacher {str(facts['teacher'])[:12]}:", highlight=False)
        steps = Table("from", "what")
        for entry in history:
            what = "distilled" if entry.get("distilled") else f"{entry['axis']} of {entry['tower']} -{entry['amount']}"
            steps.add_row(str(entry["made_from"])[:12], what)
        out.print(steps)
    if record.get("plan"):
        stages = ", ".join(f"{axis} -{stage['max']}" for axis, stage in record["plan"]["stages"].items())
        alpha = record["plan"]["tolerance"]["alpha"]
        out.print(f"by a plan of {stages}, with alpha {alpha} (run {record['run_key'][:12]})", highlight=False)


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[Path, typer.Option(help="A data set in imagefolder form.")],
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "test",
    batch_size: Annotated[int, typer.Option(min=1)] = Evaluation().batch_size,
    as_json: AsJson = False,
) -> None:
    """Accuracy by task, samples per second and latency of a checkpoint."""
    from lmmpress.evaluation.checkpoint import evaluate_checkpoint

    found = evaluate_checkpoint(_opened(checkpoint), data, split, Evaluation(batch_size=batch_size))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    table = Table("task", "accuracy")
    for task, accuracy in found["accuracy_by_task"].items():
        table.add_row(task, f"{accuracy:.4f}")
    table.add_row("all", f"{found['accuracy']:.4f}", style="bold")
    out.print(table)
    latency = found["latency_ms"]
    out.print(
        f"{found['samples_per_second']:.1f} samples/s at batch {batch_size}, latency p50 {latency['p50']:.0f} ms, "
        f"p95 {latency['p95']:.0f} ms",
        highlight=False,
    )


@app.command()
def report(directory: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
    """Write report.html anew from a run's result.json."""
    from lmmpress.report import report_of

    out.print(str(report_of(directory)), highlight=False)


@store.command("ls")
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
        out.print(f"run {listed.run_key[:12]}" + (f", {listed.working} works on it" if listed.working else ""))
        steps = Table("step", "decision", "from", "checkpoint", "accuracy")
        for step in listed.steps:
            found = str(step["checkpoint"])[:12] if step.get("checkpoint") else ""
            accuracy = "" if step.get("accuracy") is None else f"{step['accuracy']:.4f}"
            label = f"{step.get('stage')} {step.get('index', 0) + 1}"
            steps.add_row(label, step.get("decision"), str(step.get("parent"))[:12], found, accuracy)
        out.print(steps)
    table = Table("checkpoint", "files", "size", "not in one above")
    for checkpoint in held.checkpoints:
        sizes = (_bytes(checkpoint.bytes), _bytes(checkpoint.own_bytes))
        table.add_row(checkpoint.digest[:12], str(checkpoint.files), *sizes)
    out.print(table)
    out.print(
        f"{_bytes(held.bytes)} in {held.blobs} blobs, {held.tensors} files of tensors, {held.records} records",
        highlight=False,
    )


@store.command("verify")
def store_verify(
    address: StoreAddress,
    discard: Annotated[
        bool, typer.Option("--discard", help="Remove what is damaged and what needs it, so that it is made anew.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every blob and see whether it still matches its name; exit code 2 where something does not."""
    from lmmpress.store.address import existing_store
    from lmmpress.store.housekeeping import discard_faults, verify_store

    opened = existing_store(address)
    faults, discarded = discard_faults(opened) if discard else (verify_store(opened), [])
    if as_json:
        told = {"faults": [fault.model_dump() for fault in faults], "discarded": discarded}
        print(json.dumps(told, indent=1))
    else:
        for fault in faults:
            needed = f" (needed by {', '.join(fault.needed_by)})" if fault.needed_by else ""
            out.print(f"{fault.name}: {fault.fault}{needed}", highlight=False)
        for name in discarded:
            out.print(f"removed {name}", highlight=False)
    if faults and not discard:
        raise UserError(
            f"{address}: {len(faults)} faults; --discard removes what is damaged and what needs it; after that a run "
            "carried on with --resume, or a copy from another store, makes it whole"
        )
    if not faults and not as_json:
        out.print("every file matches its name")


@store.command("gc")
def store_gc(
    address: StoreAddress,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    grace: Annotated[float, typer.Option(min=0, help="Hours that a file nobody names is kept.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Remove files that no checkpoint names; refused while any run is worked on."""
    from lmmpress.store.address import existing_store
    from lmmpress.store.housekeeping import collect_garbage

    found = collect_garbage(existing_store(address), 3600 * grace, dry_run)
    if as_json:
        told = {"names": [entry.name for entry in found.entries], "bytes": found.bytes, "spared": found.spared}
        print(json.dumps(told | {"removed": not dry_run}, indent=1))
        return
    for entry in found.entries:
        out.print(entry.name, highlight=False)
    out.print(
        f"{'would remove' if dry_run else 'removed'} {len(found.entries)} files, {_bytes(found.bytes)}; "
        f"{found.spared} younger than {grace:g} h stay",
        highlight=False,
    )


@store.command("cp")
def store_cp(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A store, or a checkpoint: a directory, s3://..., ...")],
    target: Annotated[str, typer.Argument(metavar="TO", help="A store; made if need be.")],
    as_json: AsJson = False,
) -> None:
    """Copy a store, or one checkpoint, into another store; what is there already is not sent."""
    from lmmpress.store import open_store
    from lmmpress.store.address import existing_store, is_store
    from lmmpress.store.housekeeping import copy_checkpoint, copy_store

    into = open_store(target)
    moved = copy_store(existing_store(source), into) if is_store(source) else copy_checkpoint(_opened(source), into)
    if as_json:
        print(moved.model_dump_json())
        return
    for address in moved.addresses:
        out.print(address, highlight=False)
    out.print(f"{_bytes(moved.sent)} sent, {_bytes(moved.there)} were there", highlight=False)


def main() -> None:
    """The entry point: one line for an error and exit code 2; a traceback only with --debug."""
    debug = "--debug" in sys.argv
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        app()
    except UserError as error:
        if debug:
            raise
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("stopped")
    except OSError as error:
        if debug:
            raise
        _fail(
            "no space left on the disk; free some and run again with --resume"
            if error.errno == errno.ENOSPC
            else str(error)
        )


def _fail(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"error: {message}", style="red", highlight=False, markup=False)
    raise SystemExit(2)


def _looked_up(address: str) -> str:
    """An address as it is, or where the registry says that a registered model lies."""
    from lmmpress.registry import address_of, is_registered

    return address_of(address) if is_registered(address) else address


def _opened(address: str) -> Path:
    """A local directory with the files of the checkpoint at an address."""
    from lmmpress.store import open_checkpoint

    return open_checkpoint(_looked_up(address))


def _name_of(model: str) -> str:
    """What a compressed model is registered as. Never the name that its teacher is registered as: whoever watches for
    new versions of that would compress the compressed one."""
    from lmmpress.registry import is_registered

    if is_registered(model):
        return f"{model.removeprefix('models:/').split('@')[0].split('/')[0]}-compressed"
    return Path(model).name


def _plan(file: Path | None, built_in: str | None, overrides: list[str], with_data: bool = True) -> Plan:
    if (file is None) == (built_in is None):
        raise UserError("give one plan: a PLAN.yaml or a built-in one")
    if file is not None:
        return read_plan(file, tuple(overrides))
    assert built_in is not None
    return parse_plan(preset(built_in, with_data), tuple(overrides), where=f"preset {built_in}")


def _print_result(result: dict[str, Any]) -> None:
    """The closing table: original against compressed."""
    before, after = result["original"], result["compressed"]
    table = Table("", "original", "compressed", "")
    for tower, count in before["parameters_by_tower"].items():
        if count:
            table.add_row(
                f"{tower} parameters",
                _count(count),
                _count(after["parameters_by_tower"][tower]),
                f"{result['reduction'][tower]:.1f}x smaller",
            )
    table.add_row(
        "all parameters",
        _count(before["parameters"]),
        _count(after["parameters"]),
        f"{result['reduction']['all']:.1f}x smaller",
    )
    interval = result["drop_interval"]
    table.add_row(
        "test accuracy",
        f"{before['accuracy']:.4f}",
        f"{after['accuracy']:.4f}",
        f"lost {result['drop']:.4f} ({interval['low']:.4f} to {interval['high']:.4f})",
    )
    for task, accuracy in before["accuracy_by_task"].items():
        table.add_row(f"  {task}", f"{accuracy:.4f}", f"{after['accuracy_by_task'][task]:.4f}", "")
    for label, pick in (
        (f"samples/s at batch {before['batch_size']}", lambda one: one["samples_per_second"]),
        ("latency p50, ms", lambda one: one["latency_ms"]["p50"]),
        ("latency p95, ms", lambda one: one["latency_ms"]["p95"]),
    ):
        old, new = pick(before), pick(after)
        table.add_row(label, f"{old:.1f}", f"{new:.1f}", f"{max(old / new, new / old):.1f}x")
    out.print(table)
    kept = sum(step["decision"] != "rolled back" for step in result["steps"])
    out.print(f"{kept} of {len(result['steps'])} steps kept, {result['seconds']:.0f} s", highlight=False)


def _bytes(number: int) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number} B"


def _count(number: int) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3f} {letter}" if size == 1e9 else f"{number / size:.2f} {letter}"
    return str(number)


if __name__ == "__main__":
    main()
