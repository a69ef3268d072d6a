"""The tasks of a pipeline, called one after the other as Kubeflow does, and what they leave."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from lmmpress.axes import axis_named
from lmmpress.engine.final_result import close
from lmmpress.engine.run import known_steps, open_run
from lmmpress.plan import parse_plan
from lmmpress.result import Result
from lmmpress.store import open_store
from lmmpress.tasks.submission import read_submission
from lmmpress.tracking.client import local_store
from lmmpress.tracking.lineage import Lineage
from support import task_functions as tasks
from support.certain import certain
from support.first_task import asked_by

PARTS = ("importance", "prune", "distill", "evaluate", "gate")


def prepared(raw: dict[str, Any]) -> tuple[str, str, dict[str, list[int]]]:
    """The store's address, the submission's name, and the steps of each stage."""
    plan = parse_plan(raw)
    run = tasks.prepare(**asked_by(plan, "antgmm")).run
    return raw["store"], run, {stage.name: tasks.steps(raw["store"], run, stage.name) for stage in plan.stages}


def walk(raw: dict[str, Any]) -> Iterator[tuple[str, Callable[[], tasks.Outcome]]]:
    """Every task of the pipeline by steps, in order, as a function to call."""
    store, run, steps = prepared(raw)
    yield "evaluate original", lambda: tasks.evaluate(store, run, "original")
    for stage in parse_plan(raw).stages:
        for index in steps[stage.name]:
            if tasks.due(store, run, stage.name, cast(int, float(index))) == "open":
                for part in PARTS[0 if axis_named(stage.axis).needs_scores else 1 :]:
                    yield f"{part} {stage.name} {index}", partial(getattr(tasks, part), store, run, stage.name, index)
    yield "evaluate result", lambda: tasks.evaluate(store, run, "result")
    report = str(Path(store).parent / "report" / "page.html") if "://" not in store else "page.html"
    yield "publish", lambda: tasks.publish(store, run, report)
    if parse_plan(raw).compare:
        yield "compare", lambda: tasks.compare(store, run, report.replace("page.html", "comparison.html"))


def result_of(raw: dict[str, Any]) -> Result:
    """The result of a run that its tasks have ended, from the store."""
    store = open_store(raw["store"])
    (entry,) = [entry.name for entry in store.objects.entries("records/submission-")][:1]
    told = read_submission(store, entry.removeprefix("records/submission-").removesuffix(".json"))
    with store.run_state(told.key) as state:
        run = open_run(told.plan, store, told.key, told.original, makes=frozenset())
        return close(run, known_steps(run, state))


class RecordedStep(NamedTuple):
    """What MLflow holds of a step; models: the checkpoints that it came from and led to."""

    position: str
    tags: tuple[tuple[str, str], ...]
    models: str
    values: tuple[tuple[str, float | None], ...]


class RegisteredVersion(NamedTuple):
    checkpoint: str
    run_key: str
    aliases: list[str]


def chain(folder: Path, name: str = "antgmm") -> tuple[list[RecordedStep], RegisteredVersion]:
    """A run's lineage as readers follow it: each step with the checkpoints before and after it."""
    lineage = Lineage(local_store(folder), "antgmm")
    from lmmpress.tracking.client import open_client

    client = open_client(local_store(folder))
    experiment = certain(client.get_experiment_by_name(lineage.experiment)).experiment_id
    found = []
    for run in client.search_runs([experiment], "tags.`lmmpress.kind` = 'step'"):
        told = client.get_run(run.info.run_id)
        models = [
            [client.get_logged_model(one.model_id).tags["lmmpress.checkpoint"] for one in side]
            for side in (certain(told.inputs).model_inputs, told.outputs.model_outputs if told.outputs else [])
        ]
        tags = {key: told.data.tags[f"lmmpress.{key}"] for key in ("position", "step", "decision", "run_key")}
        values = {key: told.data.metrics.get(key) for key in ("accuracy", "drop", "parameters", "accuracy_pruned")}
        found.append(RecordedStep(tags["position"], tuple(tags.items()), str(models), tuple(values.items())))
    (version,) = client.search_model_versions(f"name='{name}'")
    registered = version.tags["lmmpress.checkpoint"], version.tags["lmmpress.run_key"], version.aliases
    return sorted(found), RegisteredVersion(*registered)


def name_of(raw: dict[str, Any]) -> str:
    (entry,) = [entry.name for entry in open_store(raw["store"]).objects.entries("records/submission-")]
    return entry.removeprefix("records/submission-").removesuffix(".json")


def status_of_run(folder: Path) -> str:
    from lmmpress.tracking.client import open_client

    client = open_client(local_store(folder))
    experiment = certain(client.get_experiment_by_name("lmmpress")).experiment_id
    (run,) = client.search_runs([experiment], "tags.`lmmpress.kind` = 'run'")
    return str(run.info.status)


def steps_in(folder: Path) -> list[str]:
    """The steps that MLflow knows, in their order."""
    from lmmpress.tracking.client import open_client

    client = open_client(local_store(folder))
    experiment = certain(client.get_experiment_by_name("lmmpress")).experiment_id
    return sorted(
        run.data.tags["lmmpress.step"] for run in client.search_runs([experiment], "tags.`lmmpress.kind` = 'step'")
    )
