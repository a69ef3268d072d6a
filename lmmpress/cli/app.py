"""The command line. Each command reads its arguments, calls the library once, and prints what came of it."""

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from lmmpress.axes import axes
from lmmpress.cli import kubeflow as cluster
from lmmpress.cli import store
from lmmpress.cli.doctor import doctor
from lmmpress.cli.shared import (
    AsJson,
    Checkpoint,
    Granularity,
    Overrides,
    PlanFile,
    console,
    faster,
    in_short,
    local,
    opened,
    out,
    say,
    the_plan,
)
from lmmpress.errors import UserError, traceback_of
from lmmpress.host.full_disk import is_full, system_says
from lmmpress.plan import Evaluation, Importance
from lmmpress.printing.terminal import Table
from lmmpress.progress import listening
from lmmpress.progress.terminal import on_terminal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Compress large multimodal models in stages: prune a little, distil, measure, keep what stays within alpha.",
    epilog="--debug, anywhere, shows the traceback of an error.",
    pretty_exceptions_enable=False,
)
AXES = "|".join(axis.name for axis in axes())
app.add_typer(store.app, name="store")
app.command()(cluster.compile)
app.command()(cluster.submit)
app.command()(doctor)


@app.callback()
def listen(context: typer.Context) -> None:
    """Show what the library says, and how far it is."""
    context.with_resource(listening(on_terminal(console)))


class Engine(StrEnum):
    local = "local"
    kfp_local = "kfp-local"


@app.command()
def run(
    directory: Annotated[Path, typer.Option("--out", help="Where the result goes.")],
    plan_file: PlanFile = None,
    sample: Annotated[bool, typer.Option("--sample", help="Compress the built-in sample model.")] = False,
    engine: Annotated[
        Engine, typer.Option(help="In this process, or as the tasks of the pipeline, a process each.")
    ] = Engine.local,
    granularity: Annotated[
        Granularity, typer.Option(help="With kfp-local: a task for each part of a step, or for each stage.")
    ] = Granularity.step,
    resume: Annotated[bool, typer.Option("--resume", help="Carry on what --out holds.")] = False,
    overrides: Overrides = [],  # noqa: B006 (typer reads the default, nothing changes it)
    as_json: AsJson = False,
) -> None:
    """Compress a model: result.json, report.html, compressed/ and the lineage in mlflow.db."""
    directory = local(directory)
    plan = the_plan(plan_file, "sample" if sample else None, overrides)
    from lmmpress.tracking.registry import located, name_of_compressed

    name = name_of_compressed(plan.model)
    plan = plan.model_copy(update={"model": located(plan.model)})
    from lmmpress.engine.compression import compress
    from lmmpress.engine.run_folder import PLAN, RESULT
    from lmmpress.reporting import write_report
    from lmmpress.tracking.client import local_store
    from lmmpress.tracking.lineage import Lineage

    recorder = Lineage(local_store(directory), model_name=name)
    try:
        if engine is Engine.local:
            result = compress(plan, directory, recorder, resume)
        else:
            cluster.needs_kubeflow()
            from lmmpress.kubeflow.local_runner import compress_in_tasks

            result = compress_in_tasks(plan, name, directory, granularity.value, resume)
    except KeyboardInterrupt:
        recorder.interrupted(None)
        raise UserError(f"stopped; carry on with the same command and --resume ({directory / PLAN} is kept)") from None
    except Exception as error:
        recorder.interrupted(error)
        if is_full(error) and (directory / PLAN).is_file():
            raise UserError(
                f"no space left on the disk of {directory}, or of its store; free some, and carry on with the same "
                "command and --resume"
            ) from error
        raise
    write_report(result, plan, directory / "report.html")
    if as_json:
        print((directory / RESULT).read_text("utf-8"))
    else:
        _print_result(result.model_dump())
        out.print(f"report: {directory / 'report.html'}")
        out.print(f"checkpoint: {directory / 'compressed'}")


@app.command()
def plan(
    plan_file: PlanFile = None,
    from_preset: Annotated[str | None, typer.Option("--preset", help="A built-in plan: sample or paper.")] = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """The sizes after every step, from configs alone, without weights."""
    wanted = the_plan(plan_file, from_preset, overrides, with_data=False)
    from lmmpress.lmm.read_anatomy import anatomy_of, read_config
    from lmmpress.pruning.sizes import predict

    sizes = predict(anatomy_of(read_config(opened(wanted.model))), wanted)
    if as_json:
        print(json.dumps([vars(size) for size in sizes], indent=1))
        return
    table = Table("step", "tower", "removes", *(axis.name for axis in axes()), "tower parameters", "all parameters")
    for size in sizes:
        label, removed = (f"{size.stage} {size.index + 1}", str(size.removed)) if size.removed else (size.stage, "")
        for number, tower in enumerate(size.tower.split(", ")):
            widths = [str(size.widths.get(f"{tower}.{axis.name}", "")) for axis in axes()]
            counts = [in_short(size.parameters_by_tower[tower]), in_short(sum(size.parameters_by_tower.values()))]
            table.add_row("" if number else label, tower, removed, *widths, *counts)
    out.print(table)


@app.command()
def prune(
    checkpoint: Checkpoint,
    target: Annotated[Path, typer.Option("--output", "-o", help="The new checkpoint directory.")],
    axis: Annotated[str | None, typer.Option(metavar=AXES, help="What becomes smaller.")] = None,
    remove: Annotated[int | None, typer.Option(help="How much goes; for attention the total over all heads.")] = None,
    tower: Annotated[str, typer.Option(help="vision, qformer or language.")] = "language",
    data: Annotated[str | None, typer.Option(help="Rows to score with; a block cut needs none.")] = None,
    split: Annotated[str, typer.Option(help="The split of the data that scores.")] = "score",
    cuts: Annotated[
        Path | None, typer.Option(help="Instead: a COMPRESSION.json, whose cuts are made again of its teacher.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """One cut of a checkpoint, without distillation."""
    from lmmpress.data import open_data
    from lmmpress.lmm.anatomy import count_by_tower
    from lmmpress.lmm.checkpoint import read_checkpoint
    from lmmpress.pruning.prune_checkpoint import prune_checkpoint, prune_like

    source, target = opened(checkpoint), local(target)
    if cuts is not None and axis is None and remove is None:
        made = prune_like(source, target, cuts)
    elif cuts is None and axis is not None and remove is not None:
        settings, rows = Importance(accumulation="batch"), open_data(data) if data else None
        made = [prune_checkpoint(source, target, tower, axis, remove, rows, split, settings)]
    else:
        raise UserError("say what to cut: --axis and --remove, or --cuts COMPRESSION.json")
    before, after = (sum(count_by_tower(read_checkpoint(path)).values()) for path in (source, target))
    if as_json:
        told = [cut.model_dump(mode="json") for cut in made]
        print(json.dumps({"checkpoint": str(target), "cut": told[-1], "cuts": told, "parameters": after}))
    else:
        out.print(f"{target}: {in_short(before)} -> {in_short(after)} parameters", highlight=False)


@app.command()
def inspect(checkpoint: Checkpoint, as_json: AsJson = False) -> None:
    """Towers, widths, cuts and parents of a checkpoint."""
    from lmmpress.files.digest import digest_checkpoint
    from lmmpress.files.own_types import is_apart
    from lmmpress.lmm.anatomy import count_by_tower
    from lmmpress.lmm.checkpoint import read_checkpoint
    from lmmpress.lmm.record import read_record, stages_of

    directory = opened(checkpoint)
    anatomy = read_checkpoint(directory)
    counts = count_by_tower(anatomy)
    widths = {name: {axis: body.width for axis, body in tower.axes.items()} for name, tower in anatomy.towers.items()}
    record = read_record(directory) or {}
    history = [
        {"made_from": entry.get("pruned_from") or entry.get("distilled_from")}
        | ({key: entry["cut"][key] for key in ("tower", "axis", "amount")} if entry.get("cut") else {"distilled": True})
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
    table = Table("tower", *(axis.name for axis in axes()), "parameters")
    for name, tower_widths in widths.items():
        table.add_row(name, *(str(tower_widths.get(axis.name, "")) for axis in axes()), in_short(counts[name]))
    for name in ("embeddings", "heads", "rest"):
        table.add_row(name, *("" for _ in axes()), in_short(counts[name]))
    out.print(table)
    if history:
        out.print(f"made from teacher {str(facts['teacher'])[:12]}:", highlight=False)
        steps = Table("from", "what")
        for entry in history:
            what = "distilled" if entry.get("distilled") else f"{entry['axis']} of {entry['tower']} -{entry['amount']}"
            steps.add_row(str(entry["made_from"])[:12], what)
        out.print(steps)
    if record.get("plan"):
        stages = ", ".join(f"{name} -{most}" for name, most in stages_of(record["plan"]))
        alpha = record["plan"]["tolerance"]["alpha"]
        words = f"by a plan of {stages}, with alpha {alpha} (run {record['run_key'][:12]})"
        out.print(words)


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[str, typer.Option(help="A data set in imagefolder form: a directory, s3://bucket/prefix.")],
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "test",
    batch_size: Annotated[int, typer.Option(min=1)] = Evaluation().batch_size,
    as_json: AsJson = False,
) -> None:
    """Accuracy by task, samples per second and latency of a checkpoint."""
    from lmmpress.data import open_data
    from lmmpress.evaluation.evaluate_checkpoint import evaluate_checkpoint

    found = evaluate_checkpoint(opened(checkpoint), open_data(data), split, Evaluation(batch_size=batch_size))
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
        f"p95 {latency['p95']:.0f} ms, at the right answers' lengths, {found['tokens']:.1f} tokens on average; "
        f"its own answers have {found['natural_tokens']:.1f}",
        highlight=False,
    )


@app.command()
def report(directory: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
    """Write report.html anew from a run's result.json."""
    from lmmpress.reporting import report_of

    out.print(str(report_of(directory)), highlight=False)


def main() -> None:
    """The entry point: one line for an error; exit code 2 where the fault is the user's or the world's, 1 where it is
    ours; a traceback only with --debug."""
    debug = "--debug" in sys.argv
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", str(console.is_terminal).lower())
    sys.excepthook = lambda kind, error, trace: print(traceback_of(error), file=sys.stderr)
    try:
        app()
    except UserError as error:
        if debug:
            raise
        _fail(*error.lines)
    except KeyboardInterrupt:
        _fail("stopped")
    except OSError as error:
        if debug:
            raise
        _fail(system_says(error))
    except Exception as error:
        if debug:
            raise
        if is_full(error):
            _fail("no space left on the disk; free some and run the command again")
        what = f"{type(error).__name__}: {error}"
        _fail(f"{what}; this is a fault of lmmpress: please report what the command prints with --debug", code=1)


def _fail(*lines: str, code: int = 2) -> None:
    for line in lines:
        say("error", line, "red")
    raise SystemExit(code)


def _print_result(result: dict[str, Any]) -> None:
    """The closing table: original against compressed."""
    before, after = result["original"], result["compressed"]
    table = Table("", "original", "compressed", "")
    for tower, count in before["parameters_by_tower"].items():
        if count:
            table.add_row(
                f"{tower} parameters",
                in_short(count),
                in_short(after["parameters_by_tower"][tower]),
                f"{result['reduction'][tower]:.1f}x smaller",
            )
    table.add_row(
        "all parameters",
        in_short(before["parameters"]),
        in_short(after["parameters"]),
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
    old, new = before["samples_per_second"], after["samples_per_second"]
    table.add_row(f"samples/s at batch {before['batch_size']}", f"{old:.1f}", f"{new:.1f}", faster(new / old))
    for quantile in ("p50", "p95"):
        old, new = before["latency_ms"][quantile], after["latency_ms"][quantile]
        table.add_row(f"latency {quantile}, ms", f"{old:.1f}", f"{new:.1f}", faster(old / new))
    if None not in (before["tokens"], before["natural_tokens"], after["natural_tokens"]):
        own = [f"{model['natural_tokens']:.1f}" for model in (before, after)]
        table.add_row("tokens of its own answers", *own, f"speed is at {before['tokens']:.1f}, the right answers'")
    out.print(table)
    kept = sum(step["decision"] != "rolled back" for step in result["steps"])
    out.print(f"{kept} of {len(result['steps'])} steps kept, {result['seconds']:.0f} s", highlight=False)


if __name__ == "__main__":
    main()
