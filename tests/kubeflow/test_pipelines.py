"""The compiled pipelines: what is in them, how large they are, and that one file serves any plan of the same stages."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.compiled import documents
from support.paths import ROOT
from support.plans import PLAN, PROFILE
from support.tasks import asked_by
from typer.testing import CliRunner

from lmmpress.axes import axes
from lmmpress.cli.app import app
from lmmpress.errors import UserError
from lmmpress.host.patience import PATIENCE
from lmmpress.host.pod import (
    IMAGE,
    NAMESPACE,
    NODE,
    PAGES,
    PART_LABEL,
    PIPELINE_RUN,
    POD,
    STAGE_LABEL,
    SUBMITTER,
    WORKFLOW,
)
from lmmpress.kubeflow.compile import Granularity, compile_plan
from lmmpress.kubeflow.ir import share
from lmmpress.plan import Plan, parse_plan
from lmmpress.progress.log import LOG
from lmmpress.tasks.cluster_profile import COMPONENTS, ON_GPU, Profile
from lmmpress.tasks.parameters import plan_of
from lmmpress.tasks.training_manifest import TRAINING, training_manifest


def compiled(tmp_path: Path, granularity: Any, raw: dict[str, Any] = PLAN, profile: Any = PROFILE) -> tuple[Any, Any]:
    target = tmp_path / f"{granularity}.yaml"
    compile_plan(parse_plan(raw), "antgmm", Profile.model_validate(profile), granularity, target)
    spec, *platform = documents(target)
    return spec, platform[0] if platform else {}


def pods_of(spec: Any, platform: Any) -> dict[str, tuple[Any, Any]]:
    """The container and the pod settings of each component, by its name."""
    settings_of = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {
        label.removeprefix("exec-").rstrip("-0123456789").replace("-", "_"): (executor["container"], settings_of[label])
        for label, executor in spec["deploymentSpec"]["executors"].items()
    }


@pytest.mark.parametrize(("granularity", "most"), [("step", 145_000), ("stage", 32_000)])
def test_a_pipeline_is_small_with_everything_that_a_profile_can_say(
    tmp_path: Path, granularity: str, most: int
) -> None:
    compiled(tmp_path, granularity)
    assert (tmp_path / f"{granularity}.yaml").stat().st_size < most


@pytest.mark.parametrize("granularity", ["step", "stage"])
def test_every_reference_in_a_pipeline_leads_somewhere_and_nothing_is_written_twice(
    tmp_path: Path, granularity: str
) -> None:
    spec, platform = compiled(tmp_path, granularity)
    components, executors = spec["components"], spec["deploymentSpec"]["executors"]
    used = set()
    for dag in (spec["root"], *components.values()):
        for name, task in dag.get("dag", {}).get("tasks", {}).items():
            used.add(task["componentRef"]["name"])
            assert set(task.get("dependentTasks", [])) <= dag["dag"]["tasks"].keys() - {name}
    assert used == components.keys()
    labels = {component["executorLabel"] for component in components.values() if "executorLabel" in component}
    assert labels == executors.keys()
    assert labels == platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].keys()
    before = json.dumps([spec, platform], sort_keys=True)
    share(spec, platform)
    assert json.dumps([spec, platform], sort_keys=True) == before


def test_the_loops_are_bounded_run_in_order_and_are_gated_by_what_the_state_says(tmp_path: Path) -> None:
    spec, _ = compiled(tmp_path, "step")
    for stage in PLAN["stages"]:
        inside = spec["components"][f"comp-stage-{stage}"]["dag"]["tasks"]
        loop, counted = inside[f"{stage}-steps"], inside["steps"]
        assert counted["inputs"]["parameters"]["stage"] == {"runtimeValue": {"constant": stage}}
        assert loop["iteratorPolicy"]["parallelismLimit"] == 1
        items = loop["parameterIterator"]["items"]["inputParameter"]
        assert loop["inputs"]["parameters"][items]["taskOutputParameter"]["producerTask"] == "steps"
        body = spec["components"][loop["componentRef"]["name"]]["dag"]["tasks"]
        gated = [task for task in body.values() if "triggerPolicy" in task]
        asked = body["due"]
        assert len(gated) == 1
        assert re.search(r"== 'open'$", gated[0]["triggerPolicy"]["condition"])
        assert asked["cachingOptions"] == {}
        parts = spec["components"][gated[0]["componentRef"]["name"]]["dag"]["tasks"]
        scores = [] if stage == "block" else ["importance"]
        assert sorted(parts) == sorted(f"{stage}-{part}" for part in [*scores, "prune", "distill", "evaluate", "gate"])
        first = [name for name, task in parts.items() if not task.get("dependentTasks")]
        assert len(first) == 1
        assert all(len(task["dependentTasks"]) == 1 for name, task in parts.items() if name not in first)


@pytest.mark.parametrize("granularity", ["step", "stage"])
def test_a_pipeline_holds_no_secret_and_no_address_of_this_machine(
    tmp_path: Path, granularity: Granularity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("KFP_TOKEN", "hush-token")
    monkeypatch.setenv("HOME", "/home/somebody")
    target = tmp_path / "pipeline.yaml"
    plan = parse_plan(PLAN | {"model": str(tmp_path / "antgmm"), "store": None})
    warnings = compile_plan(plan, "antgmm", Profile.model_validate(PROFILE), granularity, target)
    text = target.read_text("utf-8")
    for private in (str(tmp_path), str(Path.home()), str(ROOT), sys.prefix, "hush", "127.0.0.1", "localhost"):
        assert private not in text
    assert [warning.split(" ")[0] for warning in warnings] == ["model", "store"]
    needed = yaml.safe_load_all(text)
    inputs = next(iter(needed))["root"]["inputDefinitions"]["parameters"]
    assert [name for name, one in inputs.items() if "defaultValue" not in one] == ["model", "store"]


def test_pods_get_what_the_profile_says_and_gpus_only_where_something_computes(tmp_path: Path) -> None:
    plan = PLAN | {"compare": True}
    pods = pods_of(*compiled(tmp_path, "step", plan)) | pods_of(*compiled(tmp_path, "stage", plan))
    assert set(pods) == set(COMPONENTS) - {"approval"}, "this plan waits for nobody"
    for component, (container, pod) in pods.items():
        gpus = container["resources"].get("accelerator", {}).get("resourceCount")
        wanted = {"distill": "4"}.get(component, "1" if component in ON_GPU else None)
        assert gpus == wanted, component
        assert container["image"] == PROFILE["image"]
        environment = {one["name"]: one["value"] for one in container["env"]}
        assert environment["AWS_ENDPOINT_URL"] == "http://s3.storage:9000"
        assert environment["HOME"] == "/tmp"
        assert LOG not in environment, "lines are the default"
        assert pod["securityContext"] == {"runAsUser": "65532", "runAsGroup": "65532", "runAsNonRoot": True}
        assert [one["secretName"] for one in pod["secretAsEnv"]] == ["lmmpress-store", "lmmpress-mlflow"]
        assert pod["podMetadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu-team-ads"
        assert pod["nodeSelector"]["labels"] == {"pool": "gpu"}
        assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
        assert pod["nodeAffinity"][0]["matchExpressions"][0]["values"] == ["H100", "A100"]
        assert pod["activeDeadlineSeconds"] == "86400"
        assert [one["secretName"] for one in pod["imagePullSecret"]] == ["registry"]
        assert {one["mountPath"] for one in pod["pvcMount"]} == {"/cache", "/data"}
        mounts = {one["mountPath"]: one for one in pod["emptyDirMounts"]}
        assert "/tmp" in mounts
        assert ("/dev/shm" in mounts) == (component == "distill")
    assert pods["distill"][1]["emptyDirMounts"][1] == {
        "volumeName": "shm",
        "mountPath": "/dev/shm",
        "medium": "Memory",
        "sizeLimit": "16Gi",
    }
    assert pods["gate"][0]["resources"]["resourceCpuRequest"] == "1"
    assert pods["evaluate"][0]["resources"]["resourceCpuRequest"] == "4"
    spec, platform = compiled(tmp_path, "step")
    assert platform["platforms"]["kubernetes"]["pipelineConfig"]["resourceTtlOnCompletion"] == 604800
    retries = [
        task["retryPolicy"]
        for dag in spec["components"].values()
        for task in dag.get("dag", {}).get("tasks", {}).values()
        if "retryPolicy" in task
    ]
    assert retries
    assert all(one["maxRetryCount"] == 3 and one["backoffDuration"] == "60s" for one in retries)


@pytest.mark.parametrize("granularity", ["step", "stage"])
def test_every_pod_knows_its_part_and_stage_by_labels_and_itself_by_its_environment(
    tmp_path: Path, granularity: Any
) -> None:
    spec, platform = compiled(
        tmp_path, granularity, profile=PROFILE | {"patience": "1h", "log": "json", "kubeflow": {"ui": "https://kf"}}
    )
    settings_of = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    seen = set()
    for dag in (spec["root"], *spec["components"].values()):
        for task in dag.get("dag", {}).get("tasks", {}).values():
            label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
            if not label:
                continue
            container = spec["deploymentSpec"]["executors"][label]["container"]
            labels = settings_of[label]["podMetadata"]["labels"]
            named = task["inputs"]["parameters"].get("stage", {}).get("runtimeValue", {}).get("constant")
            assert labels.get(STAGE_LABEL) == (None if named in ("original", "result") else named)
            assert labels[PART_LABEL] == container["args"][-1]
            seen.add((labels[PART_LABEL], labels.get(STAGE_LABEL)))
            fields = {one["name"]: one["fieldPath"] for one in settings_of[label]["fieldPathAsEnv"]}
            assert (fields[POD], fields[NODE]) == ("metadata.name", "spec.nodeName")
            told = {one["name"]: one["value"] for one in container["env"]}
            assert (told[PATIENCE], told[LOG]) == ("1h", "json")
            assert SUBMITTER not in told
            first = labels[PART_LABEL] == "prepare"  # which notes for all what their pipeline is
            assert ({WORKFLOW, PIPELINE_RUN, NAMESPACE} <= fields.keys()) == first
            assert (told.get(IMAGE), told.get(PAGES)) == ((PROFILE["image"], "https://kf") if first else (None, None))
    part = "stage" if granularity == "stage" else "distill"
    assert {(part, stage) for stage in PLAN["stages"]} | {("prepare", None), ("publish", None)} <= seen


def test_only_the_first_pod_knows_who_submitted_and_only_if_somebody_did(tmp_path: Path) -> None:
    target = tmp_path / "pipeline.yaml"
    compile_plan(parse_plan(PLAN), "antgmm", Profile.model_validate(PROFILE), Granularity.step, target, "ada")
    spec, _ = documents(target)
    told = [
        label
        for label, executor in spec["deploymentSpec"]["executors"].items()
        if {"name": SUBMITTER, "value": "ada"} in executor["container"]["env"]
    ]
    assert told == ["exec-prepare"]


@pytest.mark.parametrize("granularity", ["step", "stage"])
def test_no_pods_host_name_is_cut_short(tmp_path: Path, granularity: Any) -> None:
    spec, platform = compiled(tmp_path, granularity)
    settings_of = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for pod in settings_of.values():
        template = f"metadata-0-{len(pod['podMetadata']['labels'])}-retry-system-container-impl"
        assert len(f"{spec['pipelineInfo']['name']}-xxxxx-{template}-{2**32 - 1}") <= 63


def test_one_file_serves_another_plan_of_the_same_stages(tmp_path: Path) -> None:
    one = compiled(tmp_path, "step")
    other = PLAN | {
        "model": "s3://models/other",
        "seed": 7,
        "tolerance": {"alpha": 0.01},
        "distillation": {"epochs": 1},
    }
    other["stages"] = {axis: {"step": 1, "max": 2} for axis in PLAN["stages"]}
    two = compiled(tmp_path, "step", other)
    for spec, _ in (one, two):
        for parameter in spec["root"]["inputDefinitions"]["parameters"].values():
            parameter.pop("defaultValue", None)
        # these defaults once more, by which the first task knows what was given
        spec["root"]["dag"]["tasks"]["prepare"]["inputs"]["parameters"].pop("compiled")
    assert one == two


AXES = [axis.name for axis in axes()]
PERCENTS = st.sampled_from(["12.5%", "25%", "50%", "99.9%"])
AMOUNTS = {"step": st.integers(1, 500), "max": st.integers(1, 5000)}
SHARES = {"step": st.integers(1, 500) | PERCENTS, "max": st.integers(1, 5000) | PERCENTS}
BY_TOWER = {
    key: one | st.fixed_dictionaries({"vision": one, "language": one}) for key, one in SHARES.items()
}  # of the plan's two towers


def stages_of(amounts: dict[str, Any], towers: tuple[str, ...] = ("vision",)) -> st.SearchStrategy[Any]:
    """Stages with such amounts, as a mapping or as a list, in which some have a tower of their own."""
    own = {"tower": st.sampled_from(towers)} if towers else {}
    return st.lists(st.sampled_from(AXES), min_size=1, unique=True).flatmap(
        lambda used: st.fixed_dictionaries({axis: st.fixed_dictionaries(amounts) for axis in used})
    ) | st.lists(
        st.fixed_dictionaries({"axis": st.sampled_from(AXES), **amounts}, optional=own), min_size=1, max_size=6
    )


plans = st.builds(
    lambda towers_and_stages, alpha, seed, epochs, rate, rows, confidence: parse_plan(
        {
            "model": "s3://m/m",
            "data": "s3://m/d",
            "store": "s3://m/s",
            "stages": towers_and_stages[1],
            "seed": seed,
            "towers": towers_and_stages[0],
            "tolerance": {"alpha": alpha, "confidence": confidence},
            "importance": {"rows": rows},
            "distillation": {"epochs": epochs, "learning_rate": rate},
        }
    ),
    st.one_of(
        st.tuples(
            st.sampled_from([["language"], ["largest"], ["vision", "language"]]),
            stages_of(AMOUNTS, ("vision", "largest")),
        ),
        st.tuples(st.sampled_from([["language"], ["vision", "language"]]), stages_of(SHARES)),
        st.tuples(st.just(["vision", "language"]), stages_of(BY_TOWER, ())),
    ),
    st.floats(0.001, 0.9),
    st.integers(0, 2**31),
    st.integers(0, 20),
    st.floats(1e-9, 1.0),
    st.none() | st.integers(1, 10**6),
    st.sampled_from(["none", 0.9]),
)


@settings(deadline=None, max_examples=100)
@given(plans)
def test_a_plan_survives_being_the_parameters_of_a_pipeline(plan: Plan) -> None:
    arguments = asked_by(plan, "name")
    # what a pipeline makes of numbers inside of lists and mappings
    for name in ("settings", "stages", "compiled"):
        arguments[name] = json.loads(json.dumps(arguments[name]), parse_int=float)
    arguments.pop("name")
    found = plan_of(**arguments)
    assert found == plan
    assert found.key_settings() == plan.key_settings()


@pytest.mark.parametrize("granularity", ["step", "stage"])
def test_shares_are_parameters_and_amounts_by_tower_are_a_list(tmp_path: Path, granularity: str) -> None:
    """The tasks make whole numbers of them: when a pipeline is compiled, its model need not be in reach."""
    whole, _ = compiled(tmp_path, granularity)
    shares: dict[str, Any] = {axis: {"step": 4, "max": 40} for axis in PLAN["stages"]}
    shares["ffn"] = {"step": "12.5%", "max": "75%"}
    spec, _ = compiled(tmp_path, granularity, PLAN | {"stages": shares})
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["ffn_step"] == {"defaultValue": "12.5%", "parameterType": "STRING", "isOptional": True}
    assert parameters["block_step"] == whole["root"]["inputDefinitions"]["parameters"]["block_step"]
    assert spec["root"]["dag"]["tasks"].keys() == whole["root"]["dag"]["tasks"].keys()
    given = asked_by(parse_plan(PLAN | {"stages": shares}), "antgmm")
    given.pop("name")
    changed = plan_of(**given | {"amounts": given["amounts"].replace("ffn_max=75%", "ffn_max=50.0%")})
    assert changed.stage("ffn").amounts() == {"step": "12.5%", "max": "50%"}
    assert plan_of(**given | {"amounts": given["amounts"].replace("=12.5%", "=96")}).stage("ffn").step == 96

    block = {"step": {"vision": 1, "language": 4}, "max": {"vision": 2, "language": 40}}
    towers = {"towers": ["vision", "language"], "stages": {"block": block}}
    spec, _ = compiled(tmp_path, granularity, PLAN | towers)
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["stages"]["defaultValue"] == [{"axis": "block"} | block]
    assert not [name for name in parameters if name.endswith(("_step", "_max"))]


LISTED = [{"axis": axis, "step": 2, "max": 4} for axis in PLAN["stages"]]
TWICE = [
    {"axis": "block", "step": 4, "max": 8},
    {"axis": "ffn", "step": 8, "max": 8},
    {"axis": "block", "step": 1, "max": 2},
]


def test_whoever_starts_a_pipeline_gives_amounts_or_a_list_of_stages() -> None:
    given = asked_by(parse_plan(PLAN), "antgmm")
    given.pop("name")
    assert given["stages"] == []
    assert given["amounts"].startswith("block_step=4.0 block_max=40.0 ffn_step=768.0 ")
    by_amounts = plan_of(**given | {"amounts": given["amounts"].replace("block_step=4.0", "block_step=8")})
    assert (by_amounts.stage("block").step, by_amounts.stage("ffn").step) == (8, 768)
    by_list = plan_of(**given | {"stages": LISTED})
    assert [stage.as_written() for stage in by_list.stages] == LISTED
    own_tower = plan_of(**given | {"stages": [LISTED[0] | {"tower": "vision"}, *LISTED[1:]]})
    assert own_tower.stage("block").tower == "vision"
    # an amount given besides the list, with the same meaning
    both = given | {"stages": LISTED, "amounts": given["amounts"].replace("block_step=4.0", "block_step=2")}
    assert plan_of(**both) == by_list


def test_a_pipeline_of_a_list_takes_the_list_alone() -> None:
    plan = parse_plan(PLAN | {"stages": TWICE})
    given = asked_by(plan, "antgmm")
    given.pop("name")
    assert given["amounts"] == ""
    assert plan_of(**given) == plan
    other = [TWICE[0], TWICE[1], TWICE[2] | {"max": 1, "tower": "vision"}]
    assert plan_of(**given | {"stages": other}).stage("block-2").max == 1


@pytest.mark.parametrize(
    ("stages", "change", "message"),
    [
        (
            PLAN["stages"],
            {"stages": LISTED[:2]},
            "stages asks for block, ffn, and the pipeline was compiled for block, ffn, ",
        ),
        (PLAN["stages"], {"stages": LISTED[::-1]}, "stages asks for io, attention, ffn, block, and the pipeline was"),
        (
            TWICE,
            {"stages": TWICE[:2]},
            "stages asks for block, ffn, and the pipeline was compiled for block, ffn, block-2",
        ),
        (TWICE, {"stages": []}, "stages is empty; give the list of block, ffn, block-2, in this order"),
        (
            PLAN["stages"],
            {"stages": LISTED, "amounts": "block_step=8 block_max=40"},
            "block_step is 8, and stages says 2; give one of the two",
        ),
        (PLAN["stages"], {"amounts": "block_step=many"}, "block_step is no number: many, nor a share such as 25%"),
        (PLAN["stages"], {"amounts": "block_step=200%"}, "block_step is no number: 200%, nor a share such as 25%"),
        (
            PLAN["stages"],
            {"stages": LISTED, "amounts": "block_step=50% block_max=40"},
            "block_step is 50%, and stages says 2; give one of the two",
        ),
        (
            PLAN["stages"],
            {"stages": [LISTED[0] | {"axis": "blok"}]},
            "stages.0.axis: there is no axis 'blok'; did you mean",
        ),
        (PLAN["stages"], {"stages": [3]}, "stages.0: input should be a section of settings, got 3"),
        (PLAN["stages"], {"stages": [LISTED[0] | {"step": 1.5}]}, "stages.0.step: input should be a valid integer"),
    ],
)
def test_stages_that_a_pipeline_cannot_make_are_refused_in_one_line(
    stages: Any, change: dict[str, Any], message: str
) -> None:
    given = asked_by(parse_plan(PLAN | {"stages": stages}), "antgmm")
    given.pop("name")
    with pytest.raises(UserError) as caught:
        plan_of(**given | change)
    (line,) = caught.value.lines
    assert line.startswith(f"the pipeline's parameters: {message}")


@pytest.mark.parametrize("granularity", ["step", "stage"])
def test_a_stage_that_comes_twice_is_compiled_under_a_name_of_its_own(tmp_path: Path, granularity: str) -> None:
    spec, _ = compiled(tmp_path, granularity, PLAN | {"stages": TWICE})
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert not [name for name in parameters if name.endswith(("_step", "_max"))]
    assert parameters["stages"]["defaultValue"] == TWICE
    assert {"block", "ffn", "block-2"} <= spec["root"]["dag"]["tasks"].keys()
    if granularity == "step":
        constant = json.dumps(spec["components"]["comp-stage-block-2"])
        assert '"block-2-steps"' in constant
        assert '{"constant": "block-2"}' in constant


def test_settings_that_are_parameters_of_the_pipeline_are_refused() -> None:
    arguments = asked_by(parse_plan(PLAN), "antgmm")
    arguments.pop("name")
    for said in ({"tolerance": {"alpha": 0.5}}, {"stages": {"block": {"step": 2}}}, {"seed": 3}):
        with pytest.raises(UserError, match="is a parameter of the pipeline"):
            plan_of(**arguments | {"settings": said})
    with pytest.raises(UserError, match="did you mean 'towers'"):
        plan_of(**arguments | {"settings": {"tower": ["language"]}})
    with pytest.raises(UserError, match="no section"):
        plan_of(**arguments | {"settings": {"tolerance": 3}})


def test_without_the_sdk_of_kubeflow_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN), "utf-8")
    monkeypatch.setitem(sys.modules, "kfp.kubernetes", None)
    found = CliRunner().invoke(app, ["compile", str(tmp_path / "plan.yaml"), "-o", str(tmp_path / "x.yaml")])
    assert "pip install 'lmmpress[kubeflow]'" in str(found.exception)


def test_reading_the_state_needs_no_torch_and_the_library_needs_no_kubeflow() -> None:
    """No component imports torch before it needs it, and the library imports nothing of Kubeflow."""
    script = """
import sys
import lmmpress.tasks, lmmpress.components.due, lmmpress.components.distill, lmmpress.pipelines.compression
assert not {"torch", "transformers", "mlflow"} & sys.modules.keys(), "imported by the modules alone"
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    script = """
import sys
import lmmpress.tasks.preparation, lmmpress.tasks.step_parts, lmmpress.engine.compression
assert not {"kfp", "kubernetes", "mlflow"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_component_has_metadata_and_a_readme_and_calls_the_library_once() -> None:
    folders = sorted(path.parent.name for path in (ROOT / "components").glob("*/component.py"))
    assert folders == sorted(COMPONENTS)
    for name in folders:
        folder = ROOT / "components" / name
        told = yaml.safe_load((folder / "metadata.yaml").read_text("utf-8"))
        assert told["name"] == name
        assert told["dependencies"]["kubeflow"]
        readme = (folder / "README.md").read_text("utf-8")
        source = (folder / "component.py").read_text("utf-8")
        for parameter in re.findall(r"^    (\w+): (?:Output\[\w+\]|str|int)(?: = \w+)?,$", source, re.MULTILINE):
            known = re.search(rf"\b{parameter}\b", readme) or re.search(r"_(step|max)$", parameter)
            assert known, f"{name}/README.md says nothing of {parameter}"
        assert len(re.findall(r"^    from lmmpress\.", source, re.MULTILINE)) == 1, "one call into the library"
        at_top = re.findall(r"^(?:from|import) ([\w.]+)", source, re.MULTILINE)
        assert set(at_top) <= {"kfp.dsl", "typing", "lmmpress.components"}


def test_every_package_is_installed() -> None:
    import tomllib

    told = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    found = {
        ".".join(("lmmpress", *path.parent.relative_to(top).parts))
        for top in (ROOT / "lmmpress",)
        for path in top.rglob("*.py")
    } | {
        ".".join(("lmmpress", *path.parent.relative_to(ROOT).parts))
        for top in ("components", "pipelines")
        for path in (ROOT / top).rglob("*.py")
    }
    assert sorted(told) == sorted(found)


ON_NODES = PROFILE | {"components": {"distill": {"nodes": 2, "gpus": 8}}}


def test_where_several_nodes_distil_the_pod_of_the_task_gets_their_manifest_and_no_gpu(tmp_path: Path) -> None:
    pods = pods_of(*compiled(tmp_path, "step", profile=ON_NODES))
    container, pod = pods["distill"]
    told = {one["name"]: one["value"] for one in container["env"]}
    assert json.loads(told[TRAINING]) == training_manifest(Profile.model_validate(ON_NODES))
    assert "accelerator" not in container["resources"]
    assert "/dev/shm" not in {one["mountPath"] for one in pod["emptyDirMounts"]}
    told_of_it = [name for name, (other, _) in pods.items() if TRAINING in {one["name"] for one in other["env"]}]
    assert told_of_it == ["distill"]
    stage, _ = pods_of(*compiled(tmp_path, "stage", profile=ON_NODES))["stage"]
    assert stage["resources"]["accelerator"]["resourceCount"] == "1", "for the other parts"
    assert TRAINING in {one["name"] for one in stage["env"]}
