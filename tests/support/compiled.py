"""A compiled pipeline, run in this process: its own wiring and the code in it, without Kubeflow.

It does for each task what Kubeflow's driver and launcher do: resolves the inputs, loops and conditions that the file
has, and runs the executor's source with the executor of Kubeflow's SDK.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from kfp.dsl.executor import Executor

Node = dict[str, Any]
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # six times as fast, if PyYAML was built with it
_PLACE = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\] == '([^']*)'")


def documents(file: Path) -> list[Any]:
    """The documents of a YAML file: a pipeline's has thousands of lines."""
    return list(yaml.load_all(file.read_text("utf-8"), _LOADER))


class Compiled:
    """`ran` lists the tasks that were run, each by its component, stage and step."""

    def __init__(self, file: Path, folder: Path) -> None:
        spec = documents(file)[0]
        self.root: Node = spec["root"]
        self.components: Node = spec["components"]
        self.executors: Node = spec["deploymentSpec"]["executors"]
        self.folder = folder
        self.ran: list[str] = []

    def run(self, arguments: Mapping[str, Any]) -> None:
        """Run the pipeline with these parameters; missing ones have the file's defaults."""
        unknown = arguments.keys() - self.root["inputDefinitions"]["parameters"].keys()
        assert not unknown, unknown
        self._component(self.root, dict(arguments))

    def _component(self, component: Node, given: Node) -> Node:
        """The outputs of a component."""
        for name, about in component.get("inputDefinitions", {}).get("parameters", {}).items():
            if name not in given and "defaultValue" in about:
                given[name] = about["defaultValue"]
        if "executorLabel" in component:
            return self._execute(component, given)
        made: Node = {}
        for name, task in _in_order(component["dag"]["tasks"]):
            made[name] = self._task(task, given, made)
        return {}

    def _task(self, task: Node, around: Node, made: Node) -> Node:
        component = self.components[task["componentRef"]["name"]]
        given = {key: _value(one, around, made) for key, one in task.get("inputs", {}).get("parameters", {}).items()}
        given = {key: _filled(value, given) for key, value in given.items()}
        if policy := task.get("triggerPolicy"):
            condition = _CONDITION.fullmatch(policy["condition"])
            assert condition, policy
            if given[condition[1]] != condition[2]:
                return {}
        if iterator := task.get("parameterIterator"):
            items = given[iterator["items"]["inputParameter"]]
            for item in items:
                self._component(component, given | {iterator["itemInput"]: item})
            return {}
        return self._component(component, given)

    def _execute(self, component: Node, given: Node) -> Node:
        """Run an executor's source as a pod does, and return its output parameters."""
        container = self.executors[component["executorLabel"]]["container"]
        name = container["args"][container["args"].index("--function_to_execute") + 1]
        place = self.folder / f"{len(self.ran):03d}-{name}"
        place.mkdir(parents=True)
        outputs = component.get("outputDefinitions", {})
        asked = {
            "inputs": {
                "parameterValues": {key: given[key] for key in given if not key.startswith("pipelinechannel--")}
            },
            "outputs": {
                "outputFile": str(place / "output.json"),
                "parameters": {key: {"outputFile": str(place / key)} for key in outputs.get("parameters", {})},
                "artifacts": {
                    key: {"artifacts": [{"name": key, "uri": str(place / key), "type": one["artifactType"]}]}
                    for key, one in outputs.get("artifacts", {}).items()
                },
            },
        }
        namespace: Node = {}
        exec(compile(container["command"][-1], str(place), "exec"), namespace)
        self.ran.append(" ".join([name, *(str(given[key]) for key in ("stage", "index") if key in given)]))
        Executor(executor_input=json.loads(json.dumps(asked)), function_to_execute=namespace[name]).execute()
        written = place / "output.json"
        content: Node = json.loads(written.read_text("utf-8")) if written.is_file() else {}
        found: Node = content.get("parameterValues", {})
        return found


def _in_order(tasks: Node) -> Iterator[tuple[str, Node]]:
    """Tasks in an order in which each is after those that it depends on."""
    done: set[str] = set()
    while len(done) < len(tasks):
        ready = [name for name, one in tasks.items() if name not in done and set(one.get("dependentTasks", ())) <= done]
        assert ready, "tasks wait for each other"
        for name in ready:
            yield name, tasks[name]
            done.add(name)


def _value(one: Node, around: Node, made: Node) -> Any:
    """The value of a task's input."""
    if "componentInputParameter" in one:
        return around[one["componentInputParameter"]]
    if "taskOutputParameter" in one:
        output = one["taskOutputParameter"]
        return made[output["producerTask"]][output["outputParameterKey"]]
    return one["runtimeValue"]["constant"]


def _filled(value: Any, given: Node) -> Any:
    """A text, with references to other inputs replaced by their values."""
    return _PLACE.sub(lambda found: str(given[found[1]]), value) if isinstance(value, str) else value
