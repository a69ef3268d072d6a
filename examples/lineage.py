"""For MLOps: where a registered model comes from. Walks MLflow from a compressed model back to its teacher.

MLFLOW_TRACKING_URI=sqlite:///out/sample/mlflow.db python examples/lineage.py models:/NAME@compressed [models:/NAME/1]

With a second model the two are compared. Only what lmmpress records is read: tags, metrics, data sets and models of
MLflow. Nothing is written.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

import lmmpress


@dataclass(frozen=True)
class Registered:
    """A version of the registry, and the MLflow run that made it."""

    name: str
    version: ModelVersion
    run: Run

    def tag(self, key: str) -> str:
        return str(self.version.tags[f"lmmpress.{key}"])


def registered(client: MlflowClient, name: str) -> Registered:
    """The model of a name: models:/NAME/VERSION or models:/NAME@ALIAS."""
    path = name.removeprefix("models:/")
    model, _, alias = path.partition("@")
    number = model.rpartition("/")
    version = (
        client.get_model_version_by_alias(model, alias) if alias else client.get_model_version(number[0], number[2])
    )
    return Registered(name, version, client.get_run(str(version.run_id)))


def steps_of(client: MlflowClient, run: Run) -> list[Run]:
    """The nested runs of the steps, those that were rolled back too, in their order."""
    wanted = f"tags.`mlflow.parentRunId` = '{run.info.run_id}' and tags.`lmmpress.kind` = 'step'"
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs([run.info.experiment_id], wanted, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda step: int(step.data.tags["lmmpress.position"]))


def made_by(client: MlflowClient, step: Run) -> str | None:
    """The digest of the checkpoint that a step left; None if it was rolled back."""
    outputs = step.outputs.model_outputs if step.outputs else []
    models = [client.get_logged_model(output.model_id) for output in outputs]
    return str(models[0].tags["lmmpress.checkpoint"]) if models else None


def way_back(client: MlflowClient, model: Registered) -> Iterator[tuple[str, Run]]:
    """From the model to its teacher: each checkpoint on the way, and the step that made it."""
    makers = {made_by(client, step): step for step in steps_of(client, model.run)}
    digest = model.tag("checkpoint")
    while digest != model.tag("original"):
        yield digest, makers[digest]
        digest = makers[digest].data.tags["lmmpress.parent"]


def show(client: MlflowClient, model: Registered) -> None:
    metrics = model.run.data.metrics
    print(f"{model.name}: version {model.version.version} of {model.version.name}")
    print(f"  checkpoint {model.tag('checkpoint')[:12]} at {lmmpress.locate(model.name)}")
    print(f"  test accuracy {metrics['test.accuracy']:.4f}, lost {metrics['test.drop']:.4f}")
    for used in model.run.inputs.dataset_inputs if model.run.inputs else []:
        tags = {tag.key: tag.value for tag in used.tags}
        print(f"  data: {used.dataset.name} as {tags['mlflow.data.context']}, digest {tags['lmmpress.digest'][:12]}")
    for digest, step in way_back(client, model):
        tags, measured = step.data.tags, step.data.metrics
        what = f"{tags['lmmpress.stage']} of {tags['lmmpress.tower']} -{tags['lmmpress.removed']}"
        print(f"  {digest[:12]} <- {tags['lmmpress.parent'][:12]}  {what}: {tags['lmmpress.decision']}", end=", ")
        print(f"accuracy {measured['accuracy']:.4f}, {tags['lmmpress.reason']}")
    for step in steps_of(client, model.run):
        if step.data.tags["lmmpress.decision"] == "rolled back":
            print(f"  rolled back: {step.data.tags['lmmpress.step']}, {step.data.tags['lmmpress.reason']}")
    print(f"  teacher {model.tag('original')[:12]}: {model.run.data.params['plan.model']}")


def compare(first: Registered, second: Registered) -> None:
    same = "the same teacher" if first.tag("original") == second.tag("original") else "different teachers"
    print(f"{first.name} and {second.name}, of {same}:")
    for metric in ("compressed.parameters", "test.accuracy", "test.drop", "compressed.samples_per_second"):
        print(f"  {metric}: {first.run.data.metrics[metric]:.6g}, {second.run.data.metrics[metric]:.6g}")
    settings, others = first.run.data.params, second.run.data.params
    for key in sorted(settings.keys() | others.keys()):
        if settings.get(key) != others.get(key):
            print(f"  {key}: {settings.get(key, '-')}, {others.get(key, '-')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument("other", nargs="?", help="a second one, to compare")
    asked = parser.parse_args()
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        sys.exit("error: say in MLFLOW_TRACKING_URI where the registry is, such as sqlite:///out/sample/mlflow.db")
    names = [asked.model] + ([asked.other] if asked.other else [])
    for name in names:
        lmmpress.locate(name)  # refuses in one line what is not there
    client = MlflowClient()
    models = [registered(client, name) for name in names]
    for model in models:
        show(client, model)
    if len(models) == 2:
        compare(*models)


if __name__ == "__main__":
    try:
        main()
    except lmmpress.UserError as error:
        sys.exit(f"error: {error}")
