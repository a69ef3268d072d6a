"""Reads the Kubernetes API as plain JSON, over the connection of the Kubernetes client.

The client's typed models raise an error if an answer lacks a field. Any answer has to be handled here, so this reads
dictionaries, and a value of a wrong type is read as an empty value.
"""

import json
import os
from collections.abc import Iterator
from decimal import Decimal, DecimalException
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3

from lmmpress.errors import UserError
from lmmpress.host.extras import needs
from lmmpress.printing.one_line import printable

CONNECT, READ = 5.0, 15.0  # seconds
_LARGEST = 256 << 20  # bytes of one answer
_MOST_PAGES = 200

Node = dict[str, Any]


class UnseenError(Exception):
    """The API gave no answer or an error; `status` is the HTTP status, None without an answer."""

    def __init__(self, status: int | None, said: str) -> None:
        super().__init__(printable(said))
        self.status = status


class NoClusterError(Exception):
    """This machine has no kubeconfig and is not a pod of a cluster."""


class Cluster:
    """A cluster, read through a Kubernetes client. Nothing is sent before the first request."""

    def __init__(self, client: Any, name: str, namespace: str | None = None) -> None:
        """`namespace` is the one that the kubeconfig's context names."""
        self._client, self.name, self.namespace = client, name, namespace
        self.host = str(client.configuration.host).rstrip("/")

    def get(self, path: str, **query: str) -> Node:
        """The answer to a GET. Raises UnseenError if there is none, or if it is not a JSON object."""
        return self._object("GET", path, query, None)

    def find(self, path: str) -> Node | None:
        """The answer to a GET; None if the path does not exist."""
        try:
            return self.get(path)
        except UnseenError as error:
            if error.status == 404:
                return None
            raise

    def named(self, path: str) -> Node | None:
        """The object whose name is the end of the path; None if it does not exist."""
        answer = self.find(path)
        if answer is not None and at(answer, "metadata", "name") != path.rpartition("/")[2]:
            raise UnseenError(200, "the answer is not the requested object")
        return answer

    def items(self, path: str, **query: str) -> list[Node]:
        """All objects of a list, read page by page."""
        objects: list[Node] = []
        passed: set[str] = set()
        for _ in range(_MOST_PAGES):
            page = self.get(path, limit="500", **query)
            if not isinstance(page.get("items"), list):
                raise UnseenError(200, "the answer is no list of objects")
            objects += mappings(page["items"])
            following = text(at(page, "metadata", "continue"))
            if not following:
                return objects
            if following in passed:
                raise UnseenError(200, "the list never ends: its pages repeat")
            passed.add(following)
            query = query | {"continue": following}
        raise UnseenError(200, f"the list has more than {_MOST_PAGES} pages")

    def post(self, path: str, body: Node) -> Node:
        return self._object("POST", path, {}, body)

    def put(self, path: str, body: Node) -> Node:
        """Write an object that was read; UnseenError with status 409 if it was changed since then."""
        return self._object("PUT", path, {}, body)

    def watch(self, path: str, seconds: int, **query: str) -> Iterator[tuple[str, Node]]:
        """The changes of the objects of a list, each with its kind, for so many seconds at most. Raises UnseenError if
        the connection breaks."""
        asked = query | {"watch": "true", "timeoutSeconds": str(seconds)}
        answer = self._open("GET", path, asked, None, seconds + READ)
        if not 200 <= answer.status < 300:
            raise UnseenError(answer.status, f"HTTP {answer.status}{_message(answer.read(_LARGEST))}")
        rest = b""
        try:
            for data in answer.stream(1 << 16, decode_content=True):
                *lines, rest = (rest + data).split(b"\n")
                for event in (mapping(json.loads(line)) for line in lines if line.strip()):
                    yield text(event.get("type")), mapping(event.get("object"))
        except (urllib3.exceptions.HTTPError, OSError, ValueError, RecursionError) as error:
            raise UnseenError(None, f"the watch broke off: {_reason(error)}") from None
        finally:
            answer.close()

    def delete(self, path: str) -> None:
        self._ask("DELETE", path, {"propagationPolicy": "Background"}, None)

    def text(self, path: str, **query: str) -> str:
        return self._ask("GET", path, query, None).decode("utf-8", "replace")

    def _object(self, method: str, path: str, query: dict[str, str], body: Node | None) -> Node:
        data = self._ask(method, path, query, body)
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise UnseenError(200, "the answer is no JSON") from None
        if not isinstance(answer, dict):
            raise UnseenError(200, "the answer is no JSON object")
        return answer

    def _ask(self, method: str, path: str, query: dict[str, str], body: Node | None) -> bytes:
        answer = self._open(method, path, query, body, READ)
        try:
            data: bytes = answer.read(_LARGEST)
            answer.release_conn()
        except Exception as error:  # sockets, TLS and HTTP raise many kinds of exceptions
            raise UnseenError(None, f"no answer: {_reason(error)}") from None
        if not 200 <= answer.status < 300:
            raise UnseenError(answer.status, f"HTTP {answer.status}{_message(data)}")
        return data

    def _open(self, method: str, path: str, query: dict[str, str], body: Node | None, read: float) -> Any:
        """An answer whose body is not read yet."""
        headers = dict(self._client.default_headers) | {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            self._client.update_params_for_auth(headers, [], ["BearerToken"])
            return self._client.rest_client.pool_manager.request(
                method,
                self.host + path + ("?" + "&".join(f"{key}={quote(query[key])}" for key in query) if query else ""),
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT, read=read),
                retries=False,
                preload_content=False,
            )
        except Exception as error:  # sockets, TLS, HTTP and login plugins raise many kinds of exceptions
            raise UnseenError(None, f"no answer: {_reason(error)}") from None


def connect(context: str | None = None) -> Cluster:
    """The cluster of the kubeconfig (KUBECONFIG, else ~/.kube/config); without one, the cluster that this pod runs in.

    Raises NoClusterError if there is neither, and UserError if the kubeconfig cannot be used.
    """
    needs("kubernetes", "looking at a cluster")
    from kubernetes import client, config

    configuration = client.Configuration()
    configuration.retries = False
    files = os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
    existing = [file for file in files.split(os.pathsep) if file and Path(file).is_file()]
    if not existing:
        try:
            config.load_incluster_config(configuration)
        except config.ConfigException:
            reason = (
                f"KUBECONFIG names no existing file ({files})"
                if os.environ.get("KUBECONFIG")
                else ("there is no kubeconfig: set KUBECONFIG, or write ~/.kube/config")
            )
            raise NoClusterError(reason) from None
        return Cluster(client.ApiClient(configuration), "the cluster of this pod")
    try:
        config.load_kube_config(os.pathsep.join(existing), context, configuration, persist_config=False)
        connected = client.ApiClient(configuration)
        contexts, current = config.list_kube_config_contexts(os.pathsep.join(existing))
    except Exception as error:  # a faulty kubeconfig raises many kinds of exceptions
        raise UserError(
            f"kubeconfig {os.pathsep.join(existing)}: {_reason(error)}; list its contexts: kubectl config get-contexts"
        ) from None
    used = next((one for one in contexts if one.get("name") == context), current)
    namespace = text(at(used, "context", "namespace")) or None
    return Cluster(connected, f"context {context}" if context else "the current context", namespace)


def at(value: Any, *path: str | int) -> Any:
    """The value at a path in nested dictionaries and lists; None if there is none."""
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
            value = value[key]
        else:
            return None
    return value


def mapping(value: Any) -> Node:
    """The value if it is a dictionary, else an empty one."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[Node]:
    """The dictionaries in a list; empty if it is not a list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def text(value: Any) -> str:
    """The value if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def whole(value: Any) -> int:
    """The value if it is a whole number, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def amount(value: Any) -> Decimal | None:
    """Parse a quantity of Kubernetes such as 500m or 16Gi; None if it is not one."""
    from kubernetes.utils.quantity import parse_quantity

    if not isinstance(value, str | int | float) or isinstance(value, bool) or len(str(value)[:100]) > 64:
        return None
    try:
        quantity = Decimal(parse_quantity(value))
        return quantity if quantity.is_finite() and abs(quantity.adjusted()) < 64 else None
    except (ValueError, DecimalException, ArithmeticError):
        return None


def _message(data: bytes) -> str:
    """The message of an error answer."""
    try:
        message = text(mapping(json.loads(data)).get("message"))
    except (ValueError, RecursionError):
        message = ""
    return f": {message}" if message else ""


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    said = lines[-1].rpartition(">: ")[2] if lines else ""
    return printable(said or type(error).__name__)
