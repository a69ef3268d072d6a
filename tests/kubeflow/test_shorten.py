"""Tasks said in fewer words: they do the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.compiled import documents
from support.plans import PLAN, PROFILE

from lmmpress.kubeflow.compile import Granularity, compile_plan
from lmmpress.kubeflow.shorten import short_source, shorten
from lmmpress.plan import parse_plan
from lmmpress.tasks.cluster_profile import Profile

FOREIGN = '''
import kfp
from kfp import dsl
from kfp.dsl import *
from typing import *

def theirs(store: str, model: Output[Model], most: Optional[int] = None) -> int:
    """Says something to readers."""
    # and so does this
    import json

    return len(json.dumps([store, "a # b", most]))
'''


def executors_of(tmp_path: Path, granularity: str) -> dict[str, Any]:
    target = tmp_path / "pipeline.yaml"
    compile_plan(parse_plan(PLAN), "antgmm", Profile.model_validate(PROFILE), Granularity(granularity), target)
    spec, _ = documents(target)
    found: dict[str, Any] = spec["deploymentSpec"]["executors"]
    return found


@pytest.mark.parametrize("granularity", ["step", "stage"])
def test_tasks_of_ours_import_their_component_where_the_sdk_cannot_compile(tmp_path: Path, granularity: str) -> None:
    """As in a pod: with _KFP_RUNTIME set, and nothing imported before."""
    sources = {one["container"]["command"][3] for one in executors_of(tmp_path, granularity).values()}
    assert all(len(source) < 100 for source in sources)
    names = ", ".join(source.rpartition(" ")[2] for source in sources)
    script = "\n".join([*sources, f"print([type(one).__name__ for one in [{names}]])"])
    made = subprocess.run(
        [sys.executable, "-c", script], env={"_KFP_RUNTIME": "true"}, capture_output=True, encoding="utf-8", check=True
    )
    assert made.stdout.strip() == str(["function"] * len(sources))


def test_a_component_of_somebody_else_keeps_its_source_without_what_is_for_readers() -> None:
    short = short_source(FOREIGN)
    assert "import kfp" not in short
    assert "readers" not in short
    assert "a # b" in short
    space: dict[str, Any] = {}
    exec(short, space)
    assert space["theirs"]("x", None) == len(json.dumps(["x", "a # b", None]))


def test_a_program_and_settings_that_are_written_twice_are_written_once() -> None:
    container: dict[str, Any] = {
        "command": ["sh", "-ec", "long; python3 -m kfp.dsl.executor_main", FOREIGN],
        "args": ["--executor_input", "{{$}}", "--function_to_execute", "theirs"],
        "resources": {"cpuRequest": 1.0, "resourceCpuRequest": "1", "memoryLimit": 2.0},
    }
    twice = {"secretName": "a", "secretNameParameter": {"runtimeValue": {"constant": "a"}}, "optional": False}
    claim = {"pvcNameParameter": {"taskOutputParameter": {"producerTask": "b"}}, "mountPath": "/c"}
    pod = {"secretAsEnv": [twice], "pvcMount": [dict(claim)]}
    shorten({"exec-theirs": {"container": container}}, {"exec-theirs": pod})
    assert container["resources"] == {"resourceCpuRequest": "1", "memoryLimit": 2.0}
    assert pod == {"secretAsEnv": [{"secretName": "a"}], "pvcMount": [claim]}


def test_the_short_program_runs_a_task_with_its_arguments(tmp_path: Path) -> None:
    command = executors_of(tmp_path, "step")["exec-due"]["container"]["command"]
    told = {"inputs": {"parameterValues": {}}, "outputs": {"outputFile": str(tmp_path / "out.json")}}
    made = subprocess.run(
        [*command, "--executor_input", json.dumps(told), "--function_to_execute", "due"],
        capture_output=True,
        encoding="utf-8",
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "TMPDIR": str(tmp_path)},
    )
    assert "due() missing 4 required positional arguments" in made.stderr
    assert made.returncode == 1
