"""What `import lmmpress` offers: the commands as functions, with the same names and defaults, that return objects.

Nothing is printed. `progress` is a function that gets a function's messages and progress as events, `lmmpress.Said` or
`lmmpress.Work`. `progress=lmmpress.on_terminal()` shows them as the command line does. Wrong input raises
`lmmpress.UserError`.
"""

import importlib.metadata
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from lmmpress import presets
from lmmpress.errors import UserError
from lmmpress.host.extras import is_installed, missing
from lmmpress.host.quiet import quiet_transformers
from lmmpress.kubeflow import needs_sdk
from lmmpress.plan import Evaluation, Plan, parse_plan, read_plan
from lmmpress.progress import Listener, doing, listening, say
from lmmpress.result import Recorder, Result
from lmmpress.settings.faults import faults_of, lines_of
from lmmpress.settings.importance import Importance
from lmmpress.tasks.granularity import Granularity

if TYPE_CHECKING:  # torch, transformers and MLflow take seconds to import
    from lmmpress.benchmarks import Asked, Benchmark
    from lmmpress.data.description import Description
    from lmmpress.engine.advised import Advice
    from lmmpress.evaluation.answers import Answers, Question
    from lmmpress.evaluation.comparison import Comparison
    from lmmpress.evaluation.evaluate_checkpoint import Measurement
    from lmmpress.lmm.inspection import Inspection
    from lmmpress.pruning.planned import Sizes
    from lmmpress.pruning.prune_checkpoint import Pruned
    from lmmpress.tracking.lineage import Lineage

AnyPlan = Plan | Mapping[str, Any] | Path | str
"""A plan, in one of these forms: a `Plan`, a mapping of its keys, the path of a plan file, or the name of a preset."""
ByName = Mapping[str, Any] | Iterable[tuple[str, Any]]
"""Settings by name, as the section of a plan has them."""

Engine = Literal["local", "kfp-local"]

_AT_ONCE, _SECONDS = Evaluation().batch_size, Evaluation().seconds
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def compress(
    plan: AnyPlan,
    out: Path | str,
    *,
    engine: Engine = "local",
    granularity: Granularity | str = Granularity.step,
    resume: bool = False,
    force: bool = False,
    speed: bool | None = None,
    overrides: Iterable[str] = (),
    recorder: Recorder | str | None = "mlflow",
    progress: Listener | None = None,
) -> Result:
    """Compress a model: `lmmpress run`.

    Writes result.json, report.html, compressed/ and the lineage into the folder `out`. `engine` is `local`, this
    process, or `kfp-local`: the tasks of the pipeline, a process each, one for each part of a step or for each stage
    (`granularity`). `resume` continues the run in `out`. `speed` says whether speed is measured; None leaves that to
    the plan. `overrides` are settings of the plan, such as "stages.ffn.max=256". `recorder` records the lineage:
    "mlflow" is MLflow's store in `out`, see `lineage`; other strings are tracking URIs of MLflow.

    Raises UserError before any work if plan, model and data do not fit together, if `out` holds another run, or,
    without `force`, if the models need more memory than this machine has.
    A run that ends with an error, or is interrupted, can be resumed.
    """
    with _telling(progress):
        folder = _local(out)
        if engine == "kfp-local":
            needs_sdk("engine kfp-local")
        asked = as_plan(plan, overrides)
        if speed is not None and bool(asked.evaluation.speed) != speed:
            asked = as_plan(plan, [*overrides, f"evaluation.speed={str(speed).lower()}"])
        if asked.pipeline.approve:
            say("pipeline.approve: a run on this machine waits for no approval")
        from lmmpress.tracking.registry import located, name_of_compressed

        name = name_of_compressed(asked.model)
        found = asked.model_copy(update={"model": located(asked.model)})
        tracking_uri = _tracking_uri(recorder, folder) if isinstance(recorder, str) else None
        if engine == "kfp-local":
            if not (recorder is None or isinstance(recorder, str)):
                raise UserError(
                    "recorder: with engine kfp-local it is a tracking URI, because tasks record by themselves"
                )
            result = _compress_in_tasks(found, name, folder, granularity, resume, tracking_uri, force)
        else:
            chosen = _lineage(tracking_uri, name, asked.model) if isinstance(recorder, str) else recorder
            result = _compress_here(found, folder, chosen, resume, force)
        from lmmpress.tasks.pages import write_pages

        write_pages(found, folder, result)
        return result


def _compress_here(plan: Plan, out: Path, recorder: Recorder | None, resume: bool, force: bool) -> Result:
    from lmmpress.engine.compression import compress
    from lmmpress.tracking.background import Background
    from lmmpress.tracking.lineage import Lineage

    if isinstance(recorder, Lineage):
        recorder = Background(recorder)
    try:
        result = compress(plan, out, recorder, resume, force)
        if isinstance(recorder, Background):
            with doing("record the lineage"):
                done = recorder.finish(recorder.patience)
            if not done:
                say(f"{recorder.behind}; nothing is lost: once that is mended, --resume records the run")
        return result
    except (Exception, KeyboardInterrupt) as error:
        if interrupted := getattr(recorder, "interrupted", None):
            interrupted(error)
        raise


def _compress_in_tasks(
    plan: Plan, name: str, out: Path, granularity: str, resume: bool, tracking_uri: str | None, force: bool
) -> Result:
    from lmmpress.kubeflow.local_runner import compress_in_tasks

    if granularity not in tuple(Granularity):
        raise UserError(f"granularity {granularity!r}: it is {' or '.join(Granularity)}")
    return compress_in_tasks(plan, name, out, Granularity(granularity), resume, tracking_uri, force)


def plan_sizes(
    plan: AnyPlan,
    *,
    hardware: str | None = None,
    overrides: Iterable[str] = (),
    progress: Listener | None = None,
) -> "Sizes":
    """The sizes after every step, and the memory that each part needs at least (`memory`), from configs alone, without
    weights: `lmmpress plan`.

    For a plan with `start_from`, `start` says which run it would start from; for one with shares, `shares` says which
    numbers they became. With `hardware`, such as `h100-80gb`, `h100-80gbx8`, `cpu` or `auto`, `foresight` says what
    each stage takes on it: memory, FLOPs, time; rows are assumed if the plan's data cannot be read. Raises UserError if
    a step or a maximum is not legal for the model, if it cannot start from the run that it names, or if the hardware is
    unknown.
    """
    with _telling(progress):
        wanted = as_plan(plan, overrides, with_data=hardware is not None)
        from lmmpress.engine.plan_sizes import sizes_of_plan
        from lmmpress.tracking.registry import open_checkpoint

        return sizes_of_plan(wanted, open_checkpoint(wanted.model, weights=False), hardware)


def advise(
    plan: AnyPlan,
    out: Path | str | None = None,
    *,
    target: float | None = None,
    overrides: Iterable[str] = (),
    progress: Listener | None = None,
) -> "Advice":
    """Suggest the numbers of a plan, from what short cuts of its model lose: `lmmpress advise`.

    Each axis of each tower that the plan cuts is cut by 10, 25 and 50 %, without distillation, and measured on the
    gate's split. The suggested order, steps and maxima, each with its reason, and the estimated time of a run, are in
    the result; the new file `out` gets the suggested plan. The results are kept in a store beside that file, so that
    the same call carries on after a stop. With `target` the maxima make the towers that many times smaller.

    Raises UserError before any work if plan, model and data do not fit together, if `out` exists, or if the target
    cannot be reached.
    """
    with _telling(progress, "advise"):
        from lmmpress.engine.advice import advise
        from lmmpress.tracking.registry import located

        asked = as_plan(plan, overrides)
        found = asked.model_copy(update={"model": located(asked.model)})
        return advise(found, None if out is None else _local(out), target, asked.model)


def prune(
    checkpoint: Path | str,
    out: Path | str,
    *,
    axis: str | None = None,
    remove: int | None = None,
    tower: str = "language",
    data: Path | str | None = None,
    split: str = "score",
    cuts: Path | str | None = None,
    progress: Listener | None = None,
) -> "Pruned":
    """One cut of a checkpoint into the new directory `out`, without distillation: `lmmpress prune`.

    `remove` is the number of the tower's dimensions to remove along `axis`: for attention the total over all heads.
    They are scored on rows of `data`; a block cut needs none. Or `cuts` is a COMPRESSION.json, whose cuts are applied
    to its teacher again.

    Raises UserError if the cut is not legal, `out` exists, or data is needed and not given.
    """
    with _telling(progress, "prune"):
        from lmmpress.data import open_data
        from lmmpress.pruning.prune_checkpoint import prune_checkpoint, prune_like

        source, target = open_checkpoint(checkpoint), _local(out)
        if cuts is not None and axis is None and remove is None:
            return prune_like(source, target, Path(cuts))
        if cuts is not None or axis is None or remove is None:
            raise UserError("say what to cut: --axis and --remove, or --cuts COMPRESSION.json")
        settings, rows = Importance(accumulation="batch"), open_data(str(data)) if data else None
        return prune_checkpoint(source, target, tower, axis, remove, rows, split, settings)


def inspect(checkpoint: Path | str, *, progress: Listener | None = None) -> "Inspection":
    """Towers, widths, cuts and parents of a checkpoint, without loading it: `lmmpress inspect`."""
    with _telling(progress):
        from lmmpress.lmm.inspection import inspect_checkpoint

        return inspect_checkpoint(open_checkpoint(checkpoint))


def inspect_data(
    data: Path | str,
    *,
    columns: ByName = (),
    splits: Iterable[str] = (),
    unlabelled: bool = False,
    checkpoint: Path | str | None = None,
    turns: str = "last",
    template: str = "auto",
    fix: Path | str | None = None,
    progress: Listener | None = None,
) -> "Description":
    """What is in a data set, and every fault by row: `lmmpress data`.

    `columns` are as in a plan: our names with the data's own, or with `{"text": ...}` for a text of all rows. `splits`
    are the only ones to look at. With `unlabelled` rows may have no answer. With a `checkpoint` lengths are counted in
    its tokens too, and rows that do not fit the model are faults; it reads them by `turns` and `template`, as in a
    plan. `fix` is a new folder, to which the rows without a fault are written as an imagefolder.

    Raises UserError for data of no known form, and for a file that cannot be read as a whole.
    """
    with _telling(progress):
        from lmmpress.data import open_data
        from lmmpress.data.describe import describe
        from lmmpress.data.fix import check_target, write_clean
        from lmmpress.data.survey import surveyed
        from lmmpress.lmm.row_reading import read_by
        from lmmpress.settings.reading import reading_of

        if checkpoint is None and (turns, template) != ("last", "auto"):
            raise UserError("--turns and --template need --checkpoint")
        how = read_by(turns, template)
        folder, target = open_data(str(data)), None if fix is None else _local(fix)
        if target is not None:
            check_target(folder, target)
        with surveyed(folder, reading_of(dict(columns), unlabelled), tuple(splits)) as survey:
            survey.judge()
            tokens = None
            if checkpoint is not None:
                from lmmpress.lmm.row_lengths import measure_rows

                tokens = measure_rows(survey, open_checkpoint(checkpoint), str(checkpoint), how)
            survey.divide()
            found = describe(survey, tokens)
            return found if target is None else replace(found, fixed=write_clean(survey, target))


def evaluate(
    checkpoint: Path | str,
    data: Path | str,
    *,
    split: str = "test",
    columns: ByName = (),
    metrics: str | ByName = (),
    template: str = "auto",
    max_new_tokens: int | None = None,
    batch_size: int = _AT_ONCE,
    speed: bool = True,
    seconds: float = _SECONDS,
    tasks: str | Iterable[str] | None = None,
    include_path: Path | str | None = None,
    few_shot: int | None = None,
    harness_python: Path | str | None = None,
    run: Path | str | None = None,
    progress: Listener | None = None,
) -> "Measurement":
    """Accuracy by task, samples per second and latency of a checkpoint on a split of the data: `lmmpress evaluate`.

    `columns`, `metrics` and `template` are as in a plan, without metrics that need a teacher; answers that metrics of
    texts need are cut off after `max_new_tokens`, by default the data says how many.

    `tasks` are names of tasks of lm-evaluation-harness, or of lmms-eval if the checkpoint sees pictures. They are
    measured first, in a process of the interpreter `harness_python`, with `few_shot` solved rows before each; the
    folder `include_path` has tasks of your own. Their numbers are the result's `benchmarks`. The folder `run` of the
    run that the checkpoint is an end of keeps them too, and shows them on its report.

    Without `speed` no speed is measured; `seconds` is the time for it.

    Raises UserError for rows that do not fit the model or that their metric cannot score, if plain greedy generation
    would give other answers than the model's logits, and if the harness is not installed or fails.
    """
    with _telling(progress, "evaluate"):
        from lmmpress.data import open_data
        from lmmpress.evaluation.evaluate_checkpoint import evaluate_checkpoint
        from lmmpress.evaluation.metrics_by_task import judging_of
        from lmmpress.settings.reading import reading_of

        settings = _evaluation(batch_size, speed, seconds, max_new_tokens)
        judging = judging_of(metrics if isinstance(metrics, str) else dict(metrics), template)
        reading = reading_of(dict(columns))
        found, rows = open_checkpoint(checkpoint), open_data(str(data))
        benchmarks: tuple[Benchmark, ...] = ()
        if tasks is not None:
            from lmmpress.benchmarks import asked_for

            asked = asked_for(tasks, include_path, few_shot, harness_python, batch_size)
            benchmarks = _benchmarks(found, asked, None if run is None else _local(run))
        elif not (include_path is None and few_shot is None and harness_python is None and run is None):
            raise UserError("--include-path, --few-shot, --harness-python and --run need --tasks")
        measured = evaluate_checkpoint(found, rows, split, settings, judging, reading)
        return measured.model_copy(update={"benchmarks": benchmarks})


def _benchmarks(checkpoint: Path, asked: "Asked", run: Path | None) -> "tuple[Benchmark, ...]":
    """What a harness of others measures, kept in the folder of a run if there is one."""
    from lmmpress.benchmarks import ask
    from lmmpress.reporting import add_to, end_of

    end = None if run is None else end_of(run, checkpoint)
    numbers = ask(checkpoint, asked)
    if run is not None and end is not None:
        say(f"the report shows them: {add_to(run, end, numbers)}")
    return tuple(numbers)


def compare(
    a: Path | str,
    b: Path | str,
    data: Path | str,
    *,
    split: str | None = None,
    rows: int | None = None,
    columns: ByName = (),
    tasks: Iterable[str] = (),
    batch_size: int = _AT_ONCE,
    speed: bool = True,
    seconds: float = _SECONDS,
    watts: float | None = None,
    out: Path | str | None = None,
    progress: Listener | None = None,
) -> "Comparison":
    """Two checkpoints on the same rows: accuracy by task with paired intervals, equal answers, the rows that differ,
    size, memory, speed taking turns, energy: `lmmpress compare`. Answers are right to the last token, or wrong.

    `columns` are as in a plan. `split` is by default `test`; where the data has none, the rows of the gate or of
    validation, or its only split. `rows` is the most to compare on, `tasks` the names of the only tasks. Without
    `speed` no speed is measured; `seconds` is the time for it. `watts` is the power of the device, for an estimate of
    the energy where nothing measures it. With `out` comparison.html and comparison.json are written into that folder.

    Raises UserError for checkpoints that cannot be used or do not answer the same kind of rows, for rows that do not
    fit them, and if rows change meanwhile.
    """
    with _telling(progress, "compare"):
        from lmmpress.data import open_data
        from lmmpress.evaluation.compare_checkpoints import Asked, compare_checkpoints
        from lmmpress.reporting import check_folder, write_comparison
        from lmmpress.settings.reading import reading_of

        folder = None if out is None else _local(out)
        if folder is not None:
            check_folder(folder)
        reading = reading_of(dict(columns))
        asked = Asked(split, rows, tuple(tasks), _evaluation(batch_size, speed, seconds), watts, reading)
        pair = [(str(address), open_checkpoint(address)) for address in (a, b)]
        found = compare_checkpoints(pair[0], pair[1], (str(data), open_data(str(data))), asked)
        if folder is not None:
            write_comparison(found, folder)
        return found


def _evaluation(batch_size: int, speed: bool, seconds: float, max_new_tokens: int | None = None) -> Evaluation:
    """How a checkpoint is measured. Raises UserError for numbers out of their ranges."""
    try:
        return Evaluation(batch_size=batch_size, speed=speed, seconds=seconds, max_new_tokens=max_new_tokens)
    except ValidationError as error:
        raise UserError(*lines_of(faults_of(error, Evaluation), "evaluation")) from None


def predict(
    checkpoint: Path | str,
    asked: "Iterable[Question] | Path | str",
    *,
    split: str = "test",
    rows: int | None = None,
    batch_size: int = _AT_ONCE,
    longest: int = 32,
    progress: Listener | None = None,
) -> "Answers":
    """A checkpoint's answers, by plain greedy generation of at most `longest` tokens.

    `asked` are questions: (picture, prompt) each, the picture a path or a PIL image; or only prompts, for a text model.
    Or it is the address of a data set: then the rows of its `split` are answered, at most `rows` of them, and each
    answer says whether it is right.

    Raises UserError for pictures that cannot be read, and for questions that do not fit the model.
    """
    with _telling(progress, "predict"):
        from lmmpress.data import open_data
        from lmmpress.evaluation.answers import answer_questions, answer_split

        found = open_checkpoint(checkpoint)
        if isinstance(asked, Path | str):
            return answer_split(found, open_data(str(asked)), split, batch_size, longest, rows)
        return answer_questions(found, asked, batch_size, longest)


def report(directory: Path | str) -> Path:
    """Write report.html anew from a run's result.json, and return its path: `lmmpress report`."""
    from lmmpress.reporting import report_of

    return report_of(Path(directory))


def open_checkpoint(address: Path | str) -> Path:
    """A local directory with the files of a checkpoint, to be read only: of a directory, s3://bucket/prefix,
    STORE/checkpoints/DIGEST, models:/Name/3 or models:/Name@alias."""
    from lmmpress.tracking.registry import open_checkpoint

    return open_checkpoint(str(address))


def locate(address: str) -> str:
    """The address of a registered model, by its name models:/Name/3 or models:/Name@alias; the registry is that of
    MLFLOW_TRACKING_URI. Any other address is returned unchanged."""
    from lmmpress.tracking.registry import located

    return located(address)


def name_of_compressed(model: str) -> str:
    """The registered name of the compressed model, from a plan's `model`; never the name of its teacher."""
    from lmmpress.tracking.registry import name_of_compressed

    return name_of_compressed(model)


def lineage(plan: AnyPlan, out: Path | str) -> "Lineage":
    """The default recorder of `compress`: MLflow's store in the folder `out`, where the compressed model is registered
    under a name made of the plan's model.

    For another store: `Lineage(tracking_uri, model_name)`. Raises UserError if mlflow is not installed.
    """
    if not is_installed("mlflow"):
        raise missing("mlflow", "lineage")
    from lmmpress.tracking.client import local_store
    from lmmpress.tracking.lineage import Lineage
    from lmmpress.tracking.registry import name_of_compressed

    return Lineage(local_store(Path(out)), name_of_compressed(as_plan(plan, with_data=False).model))


def _lineage(tracking_uri: str | None, name: str, model: str) -> "Lineage | None":
    if tracking_uri is None:
        return None
    from lmmpress.tracking.lineage import Lineage
    from lmmpress.tracking.registry import is_registered

    about = {"version": importlib.metadata.version("lmmpress")} | ({"model": model} if is_registered(model) else {})
    return Lineage(tracking_uri, name, about=about)


def _tracking_uri(recorder: str, out: Path) -> str | None:
    """The tracking URI of the lineage; None, with a message, if mlflow is not installed.

    Raises UserError if mlflow is not installed, and the recorder or MLFLOW_TRACKING_URI names a store.
    """
    if is_installed("mlflow"):
        from lmmpress.tracking.client import local_store

        return local_store(out) if recorder == "mlflow" else recorder
    if recorder != "mlflow":
        raise missing("mlflow", "lineage")
    if os.environ.get("MLFLOW_TRACKING_URI", "").strip():
        raise missing("mlflow", "MLFLOW_TRACKING_URI is set, and lineage")
    say("mlflow is not installed, so no lineage is recorded: pip install 'lmmpress[mlflow]'")
    return None


def as_plan(plan: AnyPlan, overrides: Iterable[str] = (), *, with_data: bool = True) -> Plan:
    """The checked plan. A string that is the name of a preset means the preset: give a file of that name as a Path.

    The presets of samples have their own data, which is created at first use unless `with_data` is false. Raises
    UserError, with a line for each fault.
    """
    changes = tuple(overrides)
    if isinstance(plan, Plan):
        return parse_plan(plan.model_dump(mode="json"), changes) if changes else plan
    if isinstance(plan, Mapping):
        return parse_plan(dict(plan), changes)
    if isinstance(plan, str) and (plan in presets.names() or not _is_file_name(plan)):
        return parse_plan(presets.preset(plan, with_data), changes, where=f"preset {plan}")
    return read_plan(Path(plan), changes)


def _is_file_name(text: str) -> bool:
    return Path(text).name != text or bool(Path(text).suffix) or Path(text).exists()


@contextmanager
def _telling(progress: Listener | None, what: str = "") -> Iterator[None]:
    """Send what is done to `progress`; `what` it is, so that stretches without anything to count are seen."""
    with listening(progress), quiet_transformers(), doing(what) if what else nullcontext():
        yield


def _local(out: Path | str) -> Path:
    """A path of this machine. Raises UserError for an address: a folder of that name is not what was meant."""
    if _ADDRESS.match(str(out)):
        raise UserError(f"{out}: this command writes to a folder of this machine; `store cp` writes to buckets")
    return Path(out)
