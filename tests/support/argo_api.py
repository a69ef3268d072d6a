"""The part of Kubernetes' API that `submit --engine argo` uses, over real HTTP: a cluster whose Argo is well, in which
a test breaks one thing."""

import copy
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.kubeconfig import write_kubeconfig

Object = dict[str, Any]
NAMESPACE = "team-ads"
WORKFLOWS = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/workflows"
DEPLOYMENTS = "/apis/apps/v1/namespaces/argo/deployments"
SETTINGS = "/api/v1/namespaces/argo/configmaps/workflow-controller-configmap"


class ArgoApi:
    """`states` are the statuses that a workflow takes on, one after the other; `deleted` removes it after them.
    `denied` are the verbs that the pods' service account may not for workflowtaskresults. Without `lists` nobody may
    list workflows, and without `shows` nobody sees the controller."""

    def __init__(self, *states: Object) -> None:
        self.states, self.deleted, self.installed = list(states), False, True
        self.image, self.args = "quay.io/argoproj/workflow-controller:v4.0.8", list[str]()
        self.settings: Object = {}
        self.denied: set[str] = set()
        self.conflicts = 0
        self.lists = self.shows = True
        self.invalid = False
        self.workflows: dict[str, Object] = {}
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.host = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=lambda: self._server.serve_forever(0.05), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, folder: Path) -> Path:
        return write_kubeconfig(folder, self.host, namespace=NAMESPACE)

    def next_state(self, name: str) -> tuple[str, Object] | None:
        """The next change of a workflow, if there is one."""
        with self.lock:
            workflow = self.workflows.get(name)
            if workflow is None:
                return None
            if self.states:
                workflow["status"] = self.states.pop(0)
                workflow["metadata"]["resourceVersion"] = str(int(workflow["metadata"]["resourceVersion"]) + 1)
                return "MODIFIED", copy.deepcopy(workflow)
            return ("DELETED", self.workflows.pop(name)) if self.deleted else None

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == DEPLOYMENTS and not self.shows:
            return 403, {"message": "deployments.apps is forbidden"}
        if path == DEPLOYMENTS:
            container = {"image": self.image, "args": self.args}
            return 200, {"items": [{"spec": {"template": {"spec": {"containers": [container]}}}}]}
        if path == f"/api/v1/namespaces/{NAMESPACE}/pods":
            return 200, {"items": []}
        if path == SETTINGS:
            return 200, {"metadata": {"name": "workflow-controller-configmap"}, "data": self.settings}
        if path.endswith("/localsubjectaccessreviews"):
            return 201, {"status": {"allowed": body["spec"]["resourceAttributes"]["verb"] not in self.denied}}
        if path.startswith(WORKFLOWS) and self.installed:
            return self._workflow(method, path.removeprefix(WORKFLOWS).strip("/"), body)
        return 404, {"message": "the server could not find the requested resource"}

    def _workflow(self, method: str, name: str, body: Any) -> tuple[int, Any]:
        if method == "POST":
            made = body["metadata"].get("name") or body["metadata"]["generateName"] + "abcde"
            if "name" in body["metadata"] and made in self.workflows:
                return 409, {"message": f'workflows.argoproj.io "{made}" already exists'}
            if self.invalid:
                return 422, {"message": "Workflow is invalid: spec.templates"}
            self.workflows[made] = body | {"metadata": body["metadata"] | {"name": made, "resourceVersion": "1"}}
            return 201, self.workflows[made]
        if not name:
            if not self.lists:
                return 403, {"message": "workflows.argoproj.io is forbidden"}
            return 200, {"items": list(self.workflows.values())}
        if name not in self.workflows:
            return 404, {"message": f'workflows.argoproj.io "{name}" not found'}
        if method == "PUT":
            if self.conflicts:
                self.conflicts -= 1
                return 409, {"message": "the object has been modified"}
            self.workflows[name] = body
        return 200, self.workflows[name]


def _handler(api: ArgoApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            if "watch" in query:
                return self._watch(query["fieldSelector"][0].removeprefix("metadata.name="))
            status, answer = api.answer(self.command, parts.path, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _watch(self, name: str) -> None:
            self.send_response(200)
            self.end_headers()
            if changed := api.next_state(name):  # and the connection ends: a client has to go on from there
                line = json.dumps({"type": changed[0], "object": changed[1]})
                self.wfile.write(line.encode() + b"\n")

        do_GET = do_POST = do_PUT = _do  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
