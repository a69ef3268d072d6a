"""Runs a workflow of Argo's without a cluster: just the constructs that our templates use, as Argo documents them.

DAGs whose tasks depend on one another by name (a task runs if those have succeeded or were skipped), `when`,
recursion, expressions and simple tags, output parameters from files, global outputs, retries by an expression,
suspended nodes and the exit handler. A workflow here is alone, so its mutex is always free. A container's command runs
as a process of this machine, or as a function of this process, with `/tmp/result` as a folder of its own.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lmmpress.errors import UserError
from lmmpress.tasks.by_name import run_task, write_result
from support.argo_expressions import MissingError, evaluate

Object = dict[str, Any]
_TAG = re.compile(r"\{\{(=?)(.*?)\}\}(?!\})", re.DOTALL)
_RESULTS = "/tmp/result"


@dataclass(frozen=True)
class Ended:
    """How a container's process ended: its exit code, and Argo's message of the pod."""

    code: int
    message: str = ""


Runner = Callable[[list[str], dict[str, str]], Ended]
"""Runs a command with these variables."""


@dataclass
class Pod:
    """A try of a container: the name of its node, the part, the command with its variables, and how it ended."""

    node: str
    part: str
    command: list[str]
    environment: dict[str, str]
    ended: Ended


class StoppedError(Exception):
    """A workflow that has failed, or is suspended."""


@dataclass
class Workflow:
    """A workflow and what came of it. `approve` is called at each suspended node with its inputs: whether somebody
    resumes it."""

    spec: Object
    folder: Path
    run: Runner
    parameters: dict[str, str] = field(default_factory=dict)
    approve: Callable[[dict[str, str]], bool] = lambda inputs: False
    name: str = "lmmpress-abcde"
    pods: list[Pod] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    status: str = "Running"
    waits_for: dict[str, str] | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    failures: list[Object] = field(default_factory=list)

    def start(self) -> str:
        """Run it to its end; its phase. It stays Running where it is suspended."""
        declared = self.spec["arguments"]["parameters"]
        given = {one["name"]: one["value"] for one in declared if "value" in one} | self.parameters
        if missing := [one["name"] for one in declared if one["name"] not in given]:
            raise AssertionError(f"Argo refuses a workflow without {missing}")
        self.parameters = given
        try:
            self._template(self.spec["entrypoint"], {}, self.name)
            self.status = "Succeeded"
        except StoppedError:
            if self.waits_for is not None:
                return self.status
            self.status = "Failed"
        with suppress(StoppedError):
            self._template(self.spec["onExit"], {}, f"{self.name}.onExit")
        return self.status

    def default(self, name: str) -> str:
        """The value of a parameter that nobody has set."""
        (found,) = (one for one in self.spec["arguments"]["parameters"] if one["name"] == name)
        return str(found["value"])

    def parts(self) -> list[str]:
        """The parts of the pods, in their order."""
        return [pod.part for pod in self.pods]

    def _template(self, name: str, inputs: dict[str, str], node: str) -> dict[str, str]:
        """Run a template; its output parameters."""
        (template,) = (one for one in self.spec["templates"] if one["name"] == name)
        assert node.count(".") < 100, "Argo follows at most 100 templates"
        self.nodes.append(node)
        wanted = {one["name"] for one in template.get("inputs", {}).get("parameters", [])}
        assert wanted == inputs.keys(), f"{name} wants {wanted} and gets {sorted(inputs)}"
        if "dag" in template:
            return self._dag(template, inputs, node)
        if "suspend" in template:
            if self.approve(inputs):
                return {}
            self.waits_for = inputs
            raise StoppedError
        return self._container(template, inputs, node)

    def _dag(self, template: Object, inputs: dict[str, str], node: str) -> dict[str, str]:
        results: dict[str, Object] = {}
        for task in template["dag"]["tasks"]:
            assert not task.get("depends") or task["depends"] in results, "our DAGs are in order"
            variables = self._variables(inputs) | {"tasks": results}
            if "when" in task and not _is_true(_filled(task["when"], variables)):
                results[task["name"]] = {"outputs": {"parameters": {}}, "status": "Skipped"}
                continue
            given = {
                one["name"]: _filled(one["value"], variables) for one in task.get("arguments", {}).get("parameters", [])
            }
            outputs = self._template(task["template"], given, f"{node}.{task['name']}")
            results[task["name"]] = {"outputs": {"parameters": outputs}, "status": "Succeeded"}
        return {}

    def _container(self, template: Object, inputs: dict[str, str], node: str) -> dict[str, str]:
        last = Ended(0)
        strategy = template["retryStrategy"]
        for number in range(int(strategy["limit"]) + 1):
            tries = {"retries": str(number), "lastRetry": {"exitCode": str(last.code), "message": last.message}}
            folder = self.folder / f"{node}({number})"
            folder.mkdir(parents=True, exist_ok=True)
            last = self._pod(template, self._variables(inputs) | tries, f"{node}({number})", folder)
            if last.code == 0:
                return self._outputs(template, folder)
            code = "-1" if last.code < 0 else str(last.code)
            scope = {"retries": str(number), "lastRetry": {"exitCode": code, "message": last.message}}
            if not evaluate(strategy["expression"], scope):
                break
        self.failures.append(
            {"displayName": node.rpartition(".")[2], "podName": node, "message": last.message, "phase": "Failed"}
        )
        raise StoppedError

    def _pod(self, template: Object, variables: Object, node: str, folder: Path) -> Ended:
        container = template["container"]
        words = [*container["command"], *container["args"]]
        command = [_filled(word, variables).replace(_RESULTS, str(folder)) for word in words]
        environment = {
            one["name"]: _filled(one["value"], variables) for one in container["env"] if "valueFrom" not in one
        }
        environment |= {
            one["name"]: f"pod-of-{node}" if "name" in str(one["valueFrom"]["fieldRef"]) else "node1"
            for one in container["env"]
            if "fieldRef" in one.get("valueFrom", {})
        }
        ended = self.run(command, environment)
        self.pods.append(Pod(node, command[2], command, environment, ended))
        return ended

    def _outputs(self, template: Object, folder: Path) -> dict[str, str]:
        found = {}
        for one in template.get("outputs", {}).get("parameters", []):
            path = one["valueFrom"]["path"].replace(_RESULTS, str(folder))
            found[one["name"]] = Path(path).read_text("utf-8")
            if "globalName" in one:
                self.outputs[one["globalName"]] = found[one["name"]]
        return found

    def _variables(self, inputs: dict[str, str]) -> Object:
        workflow: Object = {"parameters": self.parameters, "name": self.name, "namespace": "team-ads"}
        if self.status != "Running":
            # Argo quotes the list, so that it stays text where it is put into text
            workflow |= {"status": self.status, "failures": json.dumps(json.dumps(self.failures))}
        if self.outputs:
            workflow["outputs"] = {"parameters": self.outputs}
        return {"workflow": workflow, "inputs": {"parameters": inputs}}


def _filled(text: str, variables: Object) -> str:
    """A text with its tags replaced."""

    def value(match: re.Match[str]) -> str:
        try:
            found = evaluate(match[2], variables)
        except MissingError as error:
            raise AssertionError(f"{match[0]}: {error} is missing") from None
        if isinstance(found, bool):
            return "true" if found else "false"
        return found if isinstance(found, str) else json.dumps(found)

    return _TAG.sub(value, text)


def _is_true(text: str) -> bool:
    """A condition of Argo's after its tags are replaced."""
    if text in ("true", "false"):
        return text == "true"
    left, sign, right = text.split()
    assert sign in ("==", "!=")
    return (left == right) is (sign == "==")


def by_process(command: list[str], environment: dict[str, str]) -> Ended:
    """The command as a process."""
    assert command[0] == "lmmpress"
    done = subprocess.run(
        [sys.executable, "-m", "lmmpress.cli", *command[1:]],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return Ended(done.returncode, f"main: Error (exit code {done.returncode}): {last}" if done.returncode else "")


def in_this_process(command: list[str], environment: dict[str, str]) -> Ended:
    """The task that a command runs, as a function, which saves the seconds of importing torch."""
    assert command[:2] == ["lmmpress", "task"]
    options = dict(zip(command[3::2], command[4::2], strict=True))
    given = {name: value for name, value in environment.items() if name not in ("HOME", "LMMPRESS_CACHE")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        patch.delenv("LMMPRESS_SMALLER", raising=False)
        try:
            made = run_task(command[2], json.loads(options["--arguments"]), options["--compiled-by"])
        except SystemExit as error:
            return Ended(int(str(error.code)), f"main: Error (exit code {error.code}): {error.__context__}")
        except UserError as error:
            return Ended(2, f"main: Error (exit code 2): {error}")
    write_result(made, Path(options["--result"]))
    return Ended(0)
