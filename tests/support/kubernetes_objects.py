"""A small server that keeps objects as Kubernetes' API does, as far as Helm asks: enough to install, upgrade, roll back
and uninstall a release with Helm itself. It runs nothing, checks nothing, and knows the kinds that the chart has."""

import base64
import json
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

KINDS = {
    "v1": ["ConfigMap", "PersistentVolumeClaim", "Pod", "Secret", "Service", "ServiceAccount"],
    "apps/v1": ["Deployment", "StatefulSet", "ReplicaSet"],
    "batch/v1": ["Job"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
    "rbac.authorization.k8s.io/v1": ["Role", "RoleBinding"],
}
TRAINER = {"trainer.kubeflow.org/v1alpha1": ["ClusterTrainingRuntime"]}
"""What Kubeflow Trainer serves, for a server that has it."""
CLUSTERED = ("ClusterTrainingRuntime",)
Object = dict[str, Any]


def plural(kind: str) -> str:
    return kind.lower()[:-1] + "ies" if kind.endswith("y") else kind.lower() + "s"


class ObjectServer:
    """Listens on loopback. `objects` by path; `unknown` are requests that it cannot answer; `kinds` are those that it
    knows, by their API."""

    def __init__(self, folder: Path) -> None:
        self.kinds = dict(KINDS)
        self.objects: dict[str, Object] = {}
        self.unknown: list[str] = []
        self.version = 0
        self.lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits for 40 ms between its head and its body

            def log_message(self, *_: object) -> None:
                """Nothing."""

            def _handle(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length)
                with owner.lock:
                    status, answer = owner.answer(self.command, self.path, raw, self.headers.get("Content-Type", ""))
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=lambda: self._server.serve_forever(0.05), daemon=True).start()
        address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.config = folder / "kubeconfig"
        named = {"name": "tests"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [named | {"cluster": {"server": address}}],
            "users": [named | {"user": {}}],
            "contexts": [named | {"context": {"cluster": "tests", "user": "tests"}}],
            "current-context": "tests",
        }
        self.config.write_text(yaml.safe_dump(config), "utf-8")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """What a Secret holds."""
        data = self.objects[f"/api/v1/namespaces/{namespace}/secrets/{name}"]["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def put(self, namespace: str, found: Object) -> None:
        """An object that someone else has made."""
        version = found["apiVersion"]
        above = "/api/v1" if version == "v1" else f"/apis/{version}"
        path = f"{above}/namespaces/{namespace}/{plural(found['kind'])}/{found['metadata']['name']}"
        self._keep(path, json.loads(json.dumps(found)))

    def named(self, kind: str) -> set[str]:
        return {found["metadata"]["name"] for found in self.objects.values() if found["kind"] == kind}

    def answer(self, method: str, target: str, raw: bytes, kind: str) -> tuple[int, Object]:
        url = urlsplit(target)
        if (discovered := _discover(url.path, self.kinds)) is not None:
            return 200, discovered
        match = re.fullmatch(r"(/api/v1|/apis/[^/]+/[^/]+)(/namespaces/[^/]+)?/([a-z]+)(?:/([^/]+))?", url.path)
        if not match:
            self.unknown.append(f"{method} {url.path}")
            return 404, _status(404, "NotFound")
        path, name = url.path, match[4]
        query = parse_qs(url.query)
        if method == "GET" and not name:
            return 200, self._list(path, query.get("labelSelector", [""])[0])
        if method == "POST":
            found = _read(raw)
            path = f"{path}/{found['metadata']['name']}"
            if path in self.objects:
                return 409, _status(409, "AlreadyExists")
            return 201, self._keep(path, found)
        if method == "PATCH" and "apply-patch" in kind:
            return 200, self._keep(path, yaml.safe_load(raw))
        if path not in self.objects:
            return 404, _status(404, "NotFound")
        if method == "GET":
            return 200, self.objects[path]
        if method == "PUT":
            return 200, self._keep(path, _read(raw))
        if method == "PATCH":
            return 200, self._keep(path, _merge(self.objects[path], json.loads(raw)))
        self.objects.pop(path)
        return 200, _status(200, "")

    def _keep(self, path: str, found: Object) -> Object:
        self.version += 1
        known = self.objects.get(path, {}).get("metadata", {})
        found["metadata"] |= {
            "resourceVersion": str(self.version),
            "uid": known.get("uid", str(uuid.uuid4())),
            "creationTimestamp": known.get("creationTimestamp", "2026-01-01T00:00:00Z"),
        }
        self.objects[path] = found
        return found

    def _list(self, path: str, selector: str) -> Object:
        wanted = [pair.replace("==", "=").split("=") for pair in selector.split(",") if "=" in pair]
        items = [
            found
            for key, found in self.objects.items()
            if key.rpartition("/")[0] == path
            and all(found["metadata"].get("labels", {}).get(label) == value for label, value in wanted)
        ]
        above, _, kinds = path.rpartition("/")
        version = re.sub("^/apis?/|/namespaces/.*$", "", above)
        (kind,) = (kind for kind in self.kinds[version] if plural(kind) == kinds)
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items}


def _read(raw: bytes) -> Object:
    """An object as JSON; or as Helm sends the Secrets that it keeps its releases in, in Kubernetes' binary form."""
    if not raw.startswith(b"k8s\0"):
        return dict(json.loads(raw))
    secret = _fields(dict(_fields(raw[4:]))[2])
    metadata = _fields(dict(secret)[1])
    entries = [dict(_fields(entry)) for number, entry in secret if number == 2]
    labels = [dict(_fields(entry)) for number, entry in metadata if number == 11]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": dict(metadata)[1].decode(),
            "labels": {label[1].decode(): label[2].decode() for label in labels},
        },
        "data": {entry[1].decode(): base64.b64encode(entry[2]).decode() for entry in entries},
        "type": dict(secret)[3].decode(),
    }


def _fields(raw: bytes) -> list[tuple[int, bytes]]:
    """The fields of a protocol buffer that have a length; numbers are passed over."""
    found, at = [], 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(raw):
        key = number()
        size = number()
        if key & 7 == 2:
            found.append((key >> 3, raw[at : at + size]))
            at += size
    return found


def _merge(old: Any, new: Any) -> Any:
    """A merge patch."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    merged = old | {key: _merge(old.get(key), value) for key, value in new.items()}
    return {key: value for key, value in merged.items() if value is not None}


def _status(code: int, reason: str) -> Object:
    told = "Success" if code < 400 else "Failure"
    return {"kind": "Status", "apiVersion": "v1", "status": told, "reason": reason, "code": code, "message": reason}


def _discover(path: str, kinds: dict[str, list[str]]) -> Object | None:
    """The description of the server's API."""
    if path == "/version":
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = []
        for version in kinds:
            if "/" in version:
                known = {"groupVersion": version, "version": version.split("/")[1]}
                groups.append({"name": version.split("/")[0], "versions": [known], "preferredVersion": known})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in kinds:
        return None
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    resources = [
        {
            "name": plural(kind),
            "singularName": kind.lower(),
            "namespaced": kind not in CLUSTERED,
            "kind": kind,
            "verbs": verbs,
        }
        for kind in kinds[version]
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
