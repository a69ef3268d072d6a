"""The template of a plan: all of a profile is in it, and nothing that Argo's API would refuse."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.compiled import documents
from support.plans import PLAN, PROFILE

from lmmpress.argo.compile import compile_plan, make_workflow
from lmmpress.argo.fitting import fit
from lmmpress.argo.template import DEEPEST, workflow_name
from lmmpress.errors import UserError
from lmmpress.plan import parse_plan
from lmmpress.tasks.cluster_profile import ON_GPU, Profile
from lmmpress.tasks.granularity import Choice, Granularity
from lmmpress.tasks.training_manifest import TRAINING, training_manifest

EVERYTHING = PROFILE | {
    "log": "json",
    "engine": "argo",
    "argo": {
        "namespace": "team-ads",
        "ui": "https://argo.example.com",
        "instance": "ours",
        "priority_class": "research",
        "deadline": 604800,
        "report": True,
    },
}


def compiled(folder: Path, granularity: Any = Granularity.step, profile: Any = EVERYTHING, **plan: Any) -> Any:
    target = folder / "workflow.yaml"
    compile_plan(parse_plan(PLAN | plan), "antgmm", Profile.model_validate(profile), granularity, target)
    return documents(target)[0]


def templates_of(made: Any) -> dict[str, Any]:
    return {one["name"]: one for one in made["spec"]["templates"]}


def pods_of(made: Any) -> dict[str, Any]:
    return {name: one for name, one in templates_of(made).items() if "container" in one}


@pytest.mark.parametrize("granularity", Granularity)
def test_every_template_that_is_named_is_there_and_every_input_is_given(tmp_path: Path, granularity: str) -> None:
    made = compiled(tmp_path, granularity, pipeline={"approve": ["block", "io"]})
    templates = templates_of(made)
    assert made["kind"] == "WorkflowTemplate"
    used = {made["spec"]["entrypoint"], made["spec"]["onExit"]}
    for template in templates.values():
        for task in template.get("dag", {}).get("tasks", []):
            used.add(task["template"])
            given = {one["name"] for one in task.get("arguments", {}).get("parameters", [])}
            wanted = {one["name"] for one in templates[task["template"]].get("inputs", {}).get("parameters", [])}
            assert given == wanted, task
    assert used == templates.keys()


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("profile", [EVERYTHING, {}])
def test_argos_schema_takes_every_field(tmp_path: Path, granularity: str, profile: Any) -> None:
    made = compiled(tmp_path, granularity, profile, pipeline={"approve": ["block"]}, compare=True)
    schema = json.loads(Path(__file__).with_name("workflowtemplate-4.0.8.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    assert not [error.message for error in validator.iter_errors(made)]
    made["spec"]["templates"][0]["surprise"] = made["spec"]["podGc"] = True
    assert len(list(validator.iter_errors(made))) == 2


def test_all_of_a_profile_is_in_the_pods(tmp_path: Path) -> None:
    made = compiled(tmp_path, compare=True)
    spec, pods = made["spec"], pods_of(made)
    assert spec["serviceAccountName"] == "lmmpress"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["podPriorityClassName"] == "research"
    assert spec["activeDeadlineSeconds"] == 604800
    assert spec["ttlStrategy"] == {"secondsAfterCompletion": 604800}
    assert spec["podDisruptionBudget"] == {"minAvailable": 1}
    assert made["metadata"]["labels"]["workflows.argoproj.io/controller-instanceid"] == "ours"
    for name, pod in pods.items():
        variables = {one["name"]: one for one in pod["container"]["env"]}
        assert pod["container"]["image"] == PROFILE["image"]
        assert variables["AWS_ENDPOINT_URL"]["value"] == "http://s3.storage:9000"
        assert variables["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "lmmpress-store"
        assert variables["LMMPRESS_PAGES"]["value"] == "https://argo.example.com"
        assert variables["LMMPRESS_LOG"]["value"] == "json"
        assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu-team-ads"
        assert pod["nodeSelector"] == {"pool": "gpu"}
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        assert pod["activeDeadlineSeconds"] == 86400
        mounts = {one["mountPath"] for one in pod["container"]["volumeMounts"]}
        assert {"/tmp", "/cache", "/data"} <= mounts
        gpus = pod["container"]["resources"]["limits"].get("nvidia.com/gpu")
        part = pod["metadata"]["labels"]["lmmpress/part"]
        assert gpus == ("4" if part == "distill" else "1" if part in ON_GPU else None), name
    assert "/dev/shm" in {one["mountPath"] for one in pods["distill"]["container"]["volumeMounts"]}
    terms = pods["gate"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] == ["H100", "A100"]
    assert pods["gate"]["container"]["resources"]["requests"] == {"cpu": "1", "memory": "4Gi"}
    assert pods["publish"]["outputs"]["artifacts"][0]["name"] == "report"
    (page,) = pods["compare"]["outputs"]["artifacts"]
    assert (page["name"], page["optional"]) == ("comparison", True), "where there is none, the pod has not failed"


def test_where_several_nodes_distil_the_pod_of_the_task_gets_their_manifest_and_no_gpu(tmp_path: Path) -> None:
    profile = EVERYTHING | {"components": {"distill": {"nodes": 2, "gpus": 8}}}
    pods = pods_of(compiled(tmp_path, profile=profile))
    told = {name: {one["name"]: one.get("value") for one in pod["container"]["env"]} for name, pod in pods.items()}
    assert json.loads(told["distill"][TRAINING]) == training_manifest(Profile.model_validate(profile))
    assert [name for name, variables in told.items() if TRAINING in variables] == ["distill"]
    assert "nvidia.com/gpu" not in pods["distill"]["container"]["resources"]["limits"]


@pytest.mark.parametrize("nodes", [1, 2])
def test_by_stage_the_pod_of_a_stage_keeps_its_gpus_for_the_other_parts(tmp_path: Path, nodes: int) -> None:
    profile = EVERYTHING | {"components": {"distill": {"nodes": nodes, "gpus": 8}}}
    pod = pods_of(compiled(tmp_path, Granularity.stage, profile))["stage"]
    assert pod["container"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert (TRAINING in {one["name"] for one in pod["container"]["env"]}) is (nodes > 1)


def test_pods_comply_with_the_restricted_profile(tmp_path: Path) -> None:
    made = compiled(tmp_path)
    assert made["spec"]["securityContext"]["runAsNonRoot"]
    assert made["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for pod in pods_of(made).values():
        assert pod["container"]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        }
    patch = json.loads(made["spec"]["podSpecPatch"])
    (wait,), (init,) = patch["containers"], patch["initContainers"]
    assert (wait["name"], init["name"]) == ("wait", "init")
    assert all(not one["securityContext"]["allowPrivilegeEscalation"] for one in (wait, init))


def test_texts_that_look_like_numbers_stay_texts_for_every_reader(tmp_path: Path) -> None:
    compiled(tmp_path, distillation={"learning_rate": 3e-5})
    text = (tmp_path / "workflow.yaml").read_text("utf-8")
    assert 'value: "3e-05"' in text
    values = [one["value"] for one in yaml.safe_load(text)["spec"]["arguments"]["parameters"]]
    assert all(isinstance(value, str) for value in values)


def test_an_address_of_this_machine_has_no_default(tmp_path: Path) -> None:
    made = compiled(tmp_path, model=str(tmp_path / "antgmm"))
    parameters = {one["name"]: one.get("value") for one in made["spec"]["arguments"]["parameters"]}
    assert parameters["model"] is None
    assert parameters["store"] == "s3://models/store"
    plan = parse_plan(PLAN | {"model": str(tmp_path / "antgmm")})
    with pytest.raises(UserError, match="which pods cannot reach"):
        make_workflow(plan, "antgmm", Profile.model_validate(EVERYTHING), Granularity.step)


def test_argo_3_5_gets_the_mutex_that_it_knows() -> None:
    made = [
        make_workflow(parse_plan(PLAN), "antgmm", Profile.model_validate(EVERYTHING), Granularity.step, None, version)
        for version in ((3, 5), (3, 6), (4, 1), None)
    ]
    mutex = {"name": "lmmpress-{{inputs.parameters.key}}"}
    found = [templates_of(one)["run"]["synchronization"] for one in made]
    assert found == [{"mutex": mutex}, *[{"mutexes": [mutex]}] * 3]


def test_a_stage_with_more_steps_than_argo_follows_is_refused_by_step() -> None:
    long = {"block": {"step": 1, "max": DEEPEST + 1}}
    plan = parse_plan(PLAN | {"stages": long})
    with pytest.raises(UserError, match="stage block may have 91 steps, and by step Argo follows 90"):
        fit(plan, Choice.step)
    assert fit(plan).granularity == fit(plan, Choice.stage).granularity == Granularity.stage
    assert fit(parse_plan(PLAN)).granularity == Granularity.step


def test_a_warm_run_is_made_by_stage() -> None:
    warm = parse_plan(PLAN | {"start_from": "previous"})
    assert fit(warm).granularity == fit(warm, Choice.stage).granularity == Granularity.stage
    with pytest.raises(UserError, match="makes no jumps"):
        fit(warm, Choice.step)


def test_the_names_of_pods_are_no_longer_than_a_host_name() -> None:
    name = workflow_name("Taobao ads/" + "x" * 100)
    assert len(f"{name}-xxxxx-attention-prune-0123456789") <= 63
    assert name.startswith("lmmpress-taobao-ads-x")


def test_a_workflow_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    compiled(tmp_path)
    assert "hush" not in (tmp_path / "workflow.yaml").read_text("utf-8")
