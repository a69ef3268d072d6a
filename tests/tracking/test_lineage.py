"""Lineage is read back through MLflow's own client, from a sqlite file and from a real server."""

from pathlib import Path

import pytest
from support.certain import certain
from support.lineage import SHA, STEPS, again, nested_runs, on_both, parent_run, result, run_info, step, tell

from lmmpress.errors import UserError
from lmmpress.tracking.client import local_store
from lmmpress.tracking.lineage import Lineage

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@on_both
def test_the_registered_model_leads_back_to_the_original(lineage: Lineage) -> None:
    tell(lineage, "chain")
    client = lineage.client
    version = client.get_model_version_by_alias(lineage.model_name, "compressed")
    source = certain(version.source)
    assert source.startswith("models:/m-")
    assert version.tags["lmmpress.checkpoint"] == SHA["d-final"]
    assert version.tags["lmmpress.address"] == "file:///store/d-final"
    assert version.run_id == parent_run(lineage).info.run_id

    model_id, chain = source.removeprefix("models:/"), []
    while True:
        model = client.get_logged_model(model_id)
        chain.append(model.tags["lmmpress.checkpoint"])
        made_by = client.get_run(certain(model.source_run_id))
        if made_by.data.tags["lmmpress.kind"] == "run":
            break
        assert [output.model_id for output in certain(made_by.outputs).model_outputs] == [model_id]
        (before,) = certain(made_by.inputs).model_inputs
        assert client.get_logged_model(before.model_id).tags["lmmpress.checkpoint"] == model.tags["lmmpress.parent"]
        model_id = before.model_id
    assert chain == [SHA["d-final"], SHA["b-second"], SHA["a-first"], SHA["original"]]


@on_both
def test_a_rolled_back_step_is_a_run_without_a_model(lineage: Lineage) -> None:
    tell(lineage, "rolled-back")
    runs = nested_runs(lineage)
    assert sorted(runs) == [1, 2, 3, 4]
    assert certain(runs[3].outputs).model_outputs == []
    assert runs[3].data.tags["lmmpress.decision"] == "rolled back"
    assert runs[3].data.tags["lmmpress.reason"] == "drop 0.30 is not below alpha 0.15"
    assert len(lineage.client.search_logged_models([lineage.experiment_id])) == len(SHA)


def test_a_run_says_what_was_measured_on_which_data(lineage: Lineage) -> None:
    tell(lineage, "measured")
    client, parent = lineage.client, parent_run(lineage)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["plan.tolerance.alpha"] == "0.15"
    history = {metric.step: metric.value for metric in client.get_metric_history(parent.info.run_id, "accuracy")}
    assert history == {0: 0.75, 1: 0.73, 2: 0.73, 3: 0.45, 4: 0.73}
    assert parent.data.metrics["test.drop"] == 0.02
    first = nested_runs(lineage)[1]
    assert first.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert first.data.metrics["seconds.distill"] == 4.0
    assert first.data.metrics["accuracy.mask_ shape"] == 0.5
    assert [metric.value for metric in client.get_metric_history(first.info.run_id, "loss")] == [2.0, 1.5, 1.25]
    assert first.info.end_time - first.info.start_time == 7500
    inputs = {tag.value: entry.dataset for entry in certain(parent.inputs).dataset_inputs for tag in entry.tags}
    assert inputs["gate"].name == "gate"
    assert inputs["gate"].digest == "3" * 36, "MLflow takes no more of a digest"
    assert inputs["3" * 64] == inputs["gate"], "the whole digest is a tag"
    model = client.get_logged_model(certain(first.outputs).model_outputs[0].model_id)
    assert model.status == "READY"
    assert model.params["parameters.language"] == "400"
    measured = {(metric.key, metric.dataset_digest): metric.value for metric in certain(model.metrics)}
    assert measured["accuracy", "3" * 36] == 0.73


def test_an_experiment_opens_in_the_view_for_model_training(lineage: Lineage) -> None:
    kind = "mlflow.experimentKind"
    lineage.begin(run_info("viewed"))
    client = lineage.client
    assert client.get_experiment(lineage.experiment_id).tags[kind] == "custom_model_development"

    client.create_experiment("without")
    again(Lineage(lineage.tracking_uri, "m", "without")).begin(run_info("viewed"))
    assert certain(client.get_experiment_by_name("without")).tags[kind] == "custom_model_development"

    client.create_experiment("chosen", tags={kind: "genai_development"})
    again(Lineage(lineage.tracking_uri, "m", "chosen")).begin(run_info("viewed"))
    assert certain(client.get_experiment_by_name("chosen")).tags[kind] == "genai_development", (
        "what somebody chose stays"
    )


HOSTILE = "\x1b[31mred\nerror: forged \ud800 \u202e"
SHOWN = r"\x1b[31mred\nerror: forged \ud800 \u202e"


def test_hostile_text_is_recorded_visibly(lineage: Lineage) -> None:
    """Names of tasks and splits, a reason and a path as a hostile data set would have them."""
    info = run_info("hostile")
    splits = [info.data[2].model_copy(update={"split": HOSTILE}), *info.data[3:]]
    plan = info.plan.model_copy(update={"data": HOSTILE})
    hostile = STEPS[0].model_copy(update={"reason": HOSTILE, "tower": HOSTILE, "accuracy_by_task": {HOSTILE: 0.5}})
    lineage.begin(info.model_copy(update={"data": splits, "plan": plan}))
    lineage.step(hostile)
    final = result("hostile", [hostile], "a-first")
    told = final.compressed.model_copy(update={"accuracy_by_task": {HOSTILE: 0.5}})
    lineage.end(final.model_copy(update={"compressed": told}), Path("/runs/\udcff"))

    parent, run = parent_run(lineage), nested_runs(lineage)[1]
    assert parent.data.params["plan.data"] == SHOWN
    assert certain(parent.inputs).dataset_inputs[0].dataset.name == SHOWN
    assert run.data.tags["lmmpress.reason"] == SHOWN
    assert run.info.run_name == f"block 2 {SHOWN}"
    (metric,) = [name for name in run.data.metrics if name.startswith("accuracy.")]
    assert metric.isprintable()
    (version,) = lineage.client.search_model_versions(f"name='{lineage.model_name}'")
    assert version.tags["lmmpress.path"] == r"/runs/\udcff"


def test_a_second_run_registers_a_second_version(lineage: Lineage) -> None:
    tell(lineage, "one")
    tell(again(lineage), "two")
    assert lineage.client.get_model_version_by_alias(lineage.model_name, "compressed").tags["lmmpress.run_key"] == "two"
    tell(again(lineage), "one")
    assert lineage.client.get_model_version_by_alias(lineage.model_name, "compressed").tags["lmmpress.run_key"] == "two"


def test_where_every_step_is_rolled_back_the_original_is_registered(lineage: Lineage) -> None:
    tell(lineage, "nothing", steps=[step(1, "original", "none", "rolled back")], final="original")
    version = lineage.client.get_model_version_by_alias(lineage.model_name, "compressed")
    assert version.tags["lmmpress.checkpoint"] == SHA["original"]
    assert certain(parent_run(lineage).outputs).model_outputs == []


def test_a_text_longer_than_mlflow_takes_is_cut(lineage: Lineage) -> None:
    long = STEPS[0].model_copy(update={"reason": "x" * 100_000, "stage": "s" * 1000})
    tell(lineage, "long", steps=[long], final="a-first")
    assert nested_runs(lineage)[1].data.tags["lmmpress.reason"] == "x" * 5000


def test_only_the_database_is_written(store: tuple[str, Path], lineage: Lineage) -> None:
    tell(lineage, "files")
    assert {path.name for path in store[1].rglob("*")} - {"mlflow.db-journal"} == {"mlflow.db"}


def test_a_new_database_is_made_with_its_folder_and_without_output(
    tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path_factory.mktemp("new") / "a" / "b"
    made = Lineage(local_store(folder), "quiet")
    tell(made, "quiet")
    assert capfd.readouterr() == ("", "")
    location = made.client.get_experiment(made.experiment_id).artifact_location
    assert location == (folder / "artifacts").as_uri()


def test_a_store_that_cannot_be_used_is_named_without_its_password(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:9: .*resumed") as caught:
        tell(Lineage("http://user:secret@127.0.0.1:9", "m"), "m")
    assert "secret" not in str(caught.value)
    blocking = tmp_path_factory.mktemp("blocked") / "file"
    blocking.write_text("", "utf-8")
    with pytest.raises(UserError, match="cannot hold the lineage store"):
        tell(Lineage(local_store(blocking / "folder"), "m"), "m")
