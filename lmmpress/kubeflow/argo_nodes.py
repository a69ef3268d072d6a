"""What Argo notes of a running pipeline: the nodes of its statuses, as Kubeflow Pipelines 2.17 and Argo 4.0 write them.

From their source: Kubeflow makes a driver pod and an executor pod of each task, and a driver pod of each loop, branch
and nested pipeline. Kubeflow's settings of Argo wrap every one of them in a node for retries, with the same inputs and
outputs. A driver has component, task, container and settings of the pod as its inputs. Its output is the patch of the
pod, which the five nodes around the executor repeat.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

Node = dict[str, Any]
_RUN = "01234567-89ab-cdef-0123-456789abcdef"
_LAUNCHER = (
    *("/kfp-launcher/launch", "--pipeline_name", "lmm", "--run_id", _RUN, "--execution_id", "123"),
    *("--pod_name", "$(KFP_POD_NAME)", "--pod_uid", "$(KFP_POD_UID)"),
    *("--ml_pipeline_server_address", "ml-pipeline.kubeflow", "--ml_pipeline_server_port", "8887"),
    *("--mlmd_server_address", "metadata-grpc-service.kubeflow.svc.cluster.local", "--mlmd_server_port", "8080"),
    *("--publish_logs", "true", "--publish_logs", "true", "--"),
)
_LOGS = {"artifactType": {"schemaTitle": "system.Artifact"}}


def nodes_of(spec: Node, platform: Node, steps: Mapping[str, int], retried: float = 0.0) -> Iterator[Node]:
    """Every node of a pipeline that has ended, after so many steps of each stage; this share of the tasks was tried
    twice."""
    return _Workflow(spec, platform, steps, retried).nodes()


class _Workflow:
    def __init__(self, spec: Node, platform: Node, steps: Mapping[str, int], retried: float) -> None:
        self.spec, self.steps, self.retried = spec, steps, retried
        self.components: Node = spec["components"]
        self.executors: Node = spec["deploymentSpec"]["executors"]
        kubernetes: Node = platform.get("platforms", {}).get("kubernetes", {})
        self.pods: Node = kubernetes.get("deploymentSpec", {}).get("executors", {})
        self.name = f"{spec['pipelineInfo']['name']}-xxxxx"
        self.tasks = 0

    def nodes(self) -> Iterator[Node]:
        root: Node = self.spec["root"]
        yield from self._twice(self.name, "entrypoint", "DAG", {})
        yield from self._driver(
            f"{self.name}.root-driver", "dag", {"component": _text(root), "runtime-config": "." * 900}
        )
        yield from self._twice(f"{self.name}.root", "root", "DAG", {"parent-dag-id": "1", "condition": ""})
        yield from self._dag(root, f"{self.name}.root")

    def _dag(self, component: Node, path: str) -> Iterator[Node]:
        for name, task in component["dag"]["tasks"].items():
            inner: Node = self.components[task["componentRef"]["name"]]
            if "parameterIterator" in task:
                yield from self._loop(f"{path}.{name}", name, task, inner)
            elif "dag" in inner:
                yield from self._nested(f"{path}.{name}", name, task, inner)
            else:
                yield from self._task(f"{path}.{name}", name, task, inner)

    def _loop(self, path: str, name: str, task: Node, component: Node) -> Iterator[Node]:
        about = {"component": _text(component), "task": _text(task), "task-name": name}
        yield from self._twice(path, f"{task['componentRef']['name']}-{name}-iterator", "DAG", {"parent-dag-id": "12"})
        yield from self._driver(f"{path}.iteration-driver", "dag", about)
        yield self._node(f"{path}.iteration-iterations", "", "TaskGroup", {})
        for index in range(self.steps[task["taskInfo"]["name"].removesuffix(" steps")]):
            turn = f"{path}.iteration-iterations({index}:{index})"
            given = {"parent-dag-id": "12", "iteration-index": str(index)}
            yield from self._twice(turn, f"{task['componentRef']['name']}-iteration", "DAG", given)
            yield from self._nested(f"{turn}.iteration-item", name, task, component)

    def _nested(self, path: str, name: str, task: Node, component: Node) -> Iterator[Node]:
        about = {"component": _text(component), "task": _text(task), "task-name": name, "iteration-index": "-1"}
        yield from self._driver(f"{path}-driver", "dag", about)
        given = {"parent-dag-id": "12", "condition": "true"}
        yield from self._twice(path, task["componentRef"]["name"], "DAG", given)
        yield from self._dag(component, path)

    def _task(self, path: str, name: str, task: Node, component: Node) -> Iterator[Node]:
        label = component["executorLabel"]
        container, pod = self.executors[label]["container"], self.pods.get(label, {})
        about = {"component": _text(component), "task": _text(task), "task-name": name, "container": _text(container)}
        patch = _text(_patch(container, pod, component, task, path))
        outputs = {"pod-spec-patch": patch, "cached-decision": "false", "condition": "true"}
        yield from self._driver(f"{path}-driver", "container", about | {"kubernetes-config": _text(pod)}, outputs)
        labels = sorted(pod.get("podMetadata", {}).get("labels", {}).items())
        given = {"pod-spec-patch": patch}
        for number, (key, value) in enumerate(labels, start=1):
            end = f"-{number}" if len(labels) > 1 else ""
            given |= {f"pod-metadata-label-key{end}": key, f"pod-metadata-label-val{end}": value}
        kind = f"metadata-0-{len(labels)}-" if labels else ""
        if "retryPolicy" in task:
            kind += "retry-"
            given |= {"retry-max-count": "2", "retry-backoff-duration": "30", "retry-backoff-factor": "2"}
            given |= {"retry-backoff-max-duration": "31536000"}
        yield from self._twice(path, f"{kind}system-container-executor", "DAG", given | {"cached-decision": "false"})
        self.tasks += 1
        tries = 2 if int(self.tasks * self.retried) > int((self.tasks - 1) * self.retried) else 1
        yield from self._twice(f"{path}.executor", f"{kind}system-container-impl", "Pod", given, {}, tries)

    def _driver(self, path: str, kind: str, given: Node, outputs: Node | None = None) -> Iterator[Node]:
        made = {"execution-id": "123", "iteration-count": "0", "condition": "true"} if outputs is None else outputs
        given = given | {"parent-dag-id": "12", "driver-type": "DAG"}
        yield from self._twice(path, f"system-{kind}-driver", "Pod", given, made)

    def _twice(
        self, path: str, template: str, kind: str, given: Node, made: Node | None = None, tries: int = 1
    ) -> Iterator[Node]:
        """A node, and the one for retries around it."""
        yield self._node(path, template, "Retry", given, made)
        for number in range(tries):
            yield self._node(f"{path}({number})", template, kind, given, made) | {"nodeFlag": {"retried": True}}

    def _node(self, path: str, template: str, kind: str, given: Node, made: Node | None = None) -> Node:
        own, above = _number(path), _number(path.rpartition(".")[0])
        node: Node = {
            "id": f"{self.name}-{own}",
            "name": path,
            "displayName": path.rpartition(".")[2],
            "type": kind,
            "templateName": template,
            "templateScope": f"local/{self.name}",
            "phase": "Succeeded",
            "boundaryID": f"{self.name}-{above}",
            "startedAt": _time(own),
            "finishedAt": _time(above),
            "estimatedDuration": own % 90,
            "progress": "1/1",
            "resourcesDuration": {"cpu": own % 100, "memory": above % 1000},
            "children": [f"{self.name}-{_number(path + '>')}"],
        }
        if given:
            node["inputs"] = {"parameters": [{"name": name, "value": value} for name, value in given.items()]}
        if made is not None or kind == "DAG":
            node["outboundNodes"] = [f"{self.name}-{_number(path + '<')}"] if kind == "DAG" else []
        if made is not None:
            logs = f"private-artifacts/kubeflow/{self.name}/2026/01/01/{self.name}-{template}-{own}/main.log"
            node["outputs"] = {
                "parameters": [
                    {"name": name, "value": value, "valueFrom": {"path": f"/tmp/outputs/{name}"}}
                    for name, value in made.items()
                ],
                "artifacts": [{"name": "main-logs", "s3": {"key": logs}}],
                "exitCode": "0",
            }
            node |= {"hostNodeName": "node-of-a-cluster", "taskResultSynced": True}
        return node


def _patch(container: Node, pod: Node, component: Node, task: Node, path: str) -> Node:
    """What Kubeflow's driver makes of a task for Argo to put into its pod."""
    random = hashlib.sha256(path.encode()).hexdigest()[:36]
    outputs: Node = component.get("outputDefinitions", {})
    where = f"mlpipeline/v2/artifacts/lmm/{_RUN}/{path.rpartition('.')[2]}/{random}"
    artifacts: Node = outputs.get("artifacts", {}) | {"executor-logs": _LOGS}
    made = {
        key: {
            "artifacts": [{"name": key, "uri": f"minio://{where}/{key}", "type": one["artifactType"], "metadata": {}}]
        }
        for key, one in artifacts.items()
    }
    files = {key: {"outputFile": f"/tmp/kfp/outputs/{key}"} for key in outputs.get("parameters", {})}
    values = {key: _value(one) for key, one in task.get("inputs", {}).get("parameters", {}).items()}
    told = {
        "inputs": {"parameterValues": values},
        "outputs": {"artifacts": made, "parameters": files, "outputFile": f"/minio/{where}/output_metadata.json"},
    }
    command = [*_LAUNCHER, "--executor_input", _text(told), "--component_spec", _text(component)]
    main: Node = {
        "name": "main",
        "image": container["image"],
        "command": command,
        "args": [*container.get("command", []), *container.get("args", [])],
        "env": list(container.get("env", [])),
        "resources": {"limits": {}, "requests": {}} | container.get("resources", {}),
        "imagePullPolicy": pod.get("imagePullPolicy", ""),
        "securityContext": pod.get("securityContext", {}),
        "volumeMounts": [],
    }
    volumes: list[Node] = []
    for one in pod.get("pvcMount", []):
        claim = one.get("constant", one.get("pvcNameParameter", ""))
        main["volumeMounts"].append({"name": claim, "mountPath": one["mountPath"]})
        volumes.append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
    for one in pod.get("emptyDirMounts", []):
        main["volumeMounts"].append({"name": one["volumeName"], "mountPath": one["mountPath"]})
        volumes.append({"name": one["volumeName"], "emptyDir": {"sizeLimit": one.get("sizeLimit", "")}})
    for one in pod.get("fieldPathAsEnv", []):
        main["env"].append({"name": one["name"], "valueFrom": {"fieldRef": {"fieldPath": one["fieldPath"]}}})
    for secret in pod.get("secretAsEnv", []):
        for key in secret["keyToEnv"]:
            selector = {"name": secret["secretName"], "key": key["secretKey"]}
            main["env"].append({"name": key["envVar"], "valueFrom": {"secretKeyRef": selector}})
    kept = ("nodeSelector", "tolerations", "nodeAffinity", "imagePullSecret", "activeDeadlineSeconds")
    return {"containers": [main], "volumes": volumes} | {key: pod[key] for key in kept if key in pod}


def _value(one: Node) -> Any:
    """The value of a task's input, or something of its length."""
    return one["runtimeValue"]["constant"] if "runtimeValue" in one else "0123456789abcdef01234"


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _number(path: str) -> int:
    """What Argo names a node by."""
    return int(hashlib.sha256(path.encode()).hexdigest()[:8], 16)


def _time(number: int) -> str:
    return f"2026-01-01T{number % 24:02}:{number % 60:02}:{number // 60 % 60:02}Z"
