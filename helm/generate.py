"""Makes what follows from values.yaml: the chart's values.schema.json, and the table of values in its README.

python helm/generate.py          write both
python helm/generate.py --check  say whether they are what they should be
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lmmpress.plan import Plan
from lmmpress.progress.log import LogForm
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.trigger.settings import TriggerSettings

CHART = Path(__file__).parent / "lmmpress"
BEGIN, END = "<!-- values: made by helm/generate.py -->", "<!-- end of values -->"

STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
NAME = {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$"}
QUANTITY = {"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
PREFIX = "[A-Za-z0-9_.=-]+(/[A-Za-z0-9_.=-]+)*"
AMOUNTS = {"type": "object", "additionalProperties": QUANTITY}
SELECTOR = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"matchLabels": STRINGS, "matchExpressions": {"type": "array", "items": {"type": "object"}}},
}
PEERS = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "minProperties": 1,
        "properties": {
            "ipBlock": {
                "type": "object",
                "additionalProperties": False,
                "required": ["cidr"],
                "properties": {"cidr": {"type": "string"}, "except": {"type": "array", "items": {"type": "string"}}},
            },
            "namespaceSelector": SELECTOR,
            "podSelector": SELECTOR,
        },
    },
}
SUBJECTS = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["kind", "name"],
        "properties": {
            "kind": {"enum": ["User", "Group", "ServiceAccount"]},
            "name": {"type": "string", "minLength": 1},
            "namespace": NAME,
            "apiGroup": {"type": "string"},
        },
    },
}
TOLERATIONS = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "key": {"type": "string"},
            "operator": {"enum": ["Equal", "Exists"]},
            "value": {"type": "string"},
            "effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
            "tolerationSeconds": {"type": "integer"},
        },
    },
}
AFFINITY = {
    "type": "object",
    "additionalProperties": False,
    "properties": {kind: {"type": "object"} for kind in ("nodeAffinity", "podAffinity", "podAntiAffinity")},
}
RESOURCES = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"requests": AMOUNTS, "limits": AMOUNTS},
}

PATHS = {"type": "array", "minItems": 1, "maxItems": 16, "items": {"type": "string", "pattern": "^/[^ ]*$"}}
EGRESS = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "properties": {"to": PEERS, "ports": {"type": "array", "items": {"type": "object"}}},
    },
}
FILES = {
    "type": "object",
    "propertyNames": {"pattern": "^[-._a-zA-Z0-9]+$"},
    "additionalProperties": {
        "type": "object",
        "additionalProperties": False,
        "required": ["secret", "key"],
        "properties": {"secret": NAME, "key": {"type": "string", "pattern": "^[-._a-zA-Z0-9]+$"}},
    },
}

# By the end of a key's path: what its default does not say of its type.
KINDS: dict[str, dict[str, Any]] = {
    "commonLabels": STRINGS,
    "podAnnotations": STRINGS,
    "podLabels": STRINGS,
    "nodeSelector": STRINGS,
    "annotations": STRINGS,
    "serviceAccountAnnotations": STRINGS,
    "monitoring.labels": STRINGS,
    "dashboardLabels": STRINGS,
    "extraEnv": {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    },
    "resources": RESOURCES,
    "tolerations": TOLERATIONS,
    "affinity": AFFINITY,
    "topologySpreadConstraints": {"type": "array", "items": {"type": "object"}},
    "imagePullSecrets": {"type": "array", "items": NAME},
    "rbac.secrets": {"type": "array", "items": NAME},
    "allowedHosts": {"type": "array", "items": {"type": "string", "pattern": "^[^,]+$"}},
    "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "existingSecret": NAME,
    "existingConfigMap": NAME,
    "localQueue": NAME,
    "clusterQueue": NAME,
    "runtime.name": NAME,
    "maxRestarts": {"type": "integer", "minimum": 0},
    "kubeflow.namespace": NAME,
    "serviceAccount.name": NAME,
    "sslMode": {"enum": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]},
    "engine": {"enum": ["kubeflow", "argo"]},
    "argo.namespace": NAME,
    "argo.instance": NAME,
    "argo.priorityClassName": NAME,
    "argo.ui": {"type": "string", "pattern": "^(https?://[^@]+)?$"},
    "argo.deadline": {"type": "integer", "minimum": 0},
    "submitters": SUBJECTS,
    "pipeline.log": {"enum": [form.value for form in LogForm]},
    "patience": {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?[smh]$"},
    "retries.count": {"type": "integer", "minimum": 0, "maximum": 100},
    "retries.seconds": {"type": "integer", "minimum": 1},
    "retries.factor": {"type": "integer", "minimum": 1, "maximum": 10},
    "networkPolicy.scope": {"enum": ["own", "namespace"]},
    "dns": PEERS,
    "kubernetesApi": PEERS,
    "networkPolicy.objectStorage": PEERS,
    "networkPolicy.mlflow": PEERS,
    "networkPolicy.postgresql": PEERS,
    "mlflowClients": PEERS,
    "pipelineEgress": EGRESS,
    "triggerEgress": EGRESS,
    "minioClients": PEERS,
    "triggerClients": PEERS,
    "trigger.secrets": FILES,
    "ingress.host": {"type": "string", "pattern": "^([A-Za-z0-9*]([-A-Za-z0-9.]*[A-Za-z0-9])?)?$"},
    "className": NAME,
    "tlsSecret": NAME,
    "paths": PATHS,
    "parentRefs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
    "hostnames": {"type": "array", "items": {"type": "string", "pattern": "^[-A-Za-z0-9.*]+$"}},
    "prometheus": PEERS,
    "dnsPorts": {"type": "array", "items": PORT, "minItems": 1},
    "kubernetesApiPorts": {"type": "array", "items": PORT, "minItems": 1},
    "kubeflowPorts": {"type": "array", "items": PORT, "minItems": 1},
    "objectStoragePorts": {"type": "array", "items": PORT},
    "mlflowPorts": {"type": "array", "items": PORT},
    "external.port": PORT,
    "size": QUANTITY,
    "replicas": {"type": "integer", "minimum": 0},
    "workers": {"type": "integer", "minimum": 1},
    "user": {"type": "integer", "minimum": 1},
    "maxUnavailable": {"type": "integer", "minimum": 0},
    "timeout": {"type": "integer", "minimum": 1},
    "external.url": {"type": "string", "pattern": "^(https?://[^/@]+(/.*)?)?$"},
    "external.endpoint": {"type": "string", "pattern": "^(https?://[^/@]+)?$"},
    "kubeflow.host": {"type": "string", "pattern": "^(https?://[^@]+)?$"},
    "objectStorage.bucket": {"type": "string", "pattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"},
    "objectStorage.prefix": {"type": "string", "pattern": f"^({PREFIX})?$"},
    "objectStorage.read": {
        "type": "array",
        "items": {"type": "string", "pattern": f"^({PREFIX}|s3://[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9](/{PREFIX})?)$"},
    },
    "artifacts.prefix": {"type": "string", "pattern": f"^({PREFIX}/?)?$"},
    "artifacts.bucket": {"type": "string", "pattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"},
    "interval": {"type": "string", "pattern": "^[0-9]+(s|m|h)$"},
}
UNUSED = {"title", "default", "description"}


@dataclass(frozen=True)
class Value:
    """A key of values.yaml that has a description."""

    path: str
    default: Any
    description: str


def read_values(path: Path = CHART / "values.yaml") -> list[Value]:
    """Every described key, in the file's order."""
    text = path.read_text("utf-8")
    tree = yaml.safe_load(text)
    found: list[Value] = []
    stack: list[tuple[int, str]] = []
    said: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            said = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("#") and said:
            said.append(stripped.removeprefix("#").strip())
        elif match := re.match(r"( *)([A-Za-z]+):", line):
            depth = len(match[1])
            stack = [one for one in stack if one[0] < depth] + [(depth, match[2])]
            if said:
                keys = [key for _, key in stack]
                value = tree
                for key in keys:
                    value = value[key]
                found.append(Value(".".join(keys), value, " ".join(said)))
            said = []
    return found


def leaves(values: Any, described: set[str], above: str = "") -> list[str]:
    """The paths of all values; what is described as a whole counts as one."""
    found = []
    for key, value in values.items():
        path = f"{above}.{key}" if above else key
        if isinstance(value, dict) and value and path not in described:
            found += leaves(value, described, path)
        else:
            found.append(path)
    return found


def make_table(values: list[Value]) -> str:
    lines = ["| key | default | |", "| --- | --- | --- |"]
    for value in values:
        default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
        lines.append(f"| `{value.path}` | `{default}` | {value.description} |")
    return "\n".join(lines)


def make_readme(text: str, values: list[Value]) -> str:
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{make_table(values)}\n\n{END}{after}"


def kind_of(path: str, default: Any) -> dict[str, Any]:
    """The schema of a value: what KINDS says of its path, the longest end first; else the type of its default."""
    parts = path.split(".")
    for length in (2, 1):
        if (end := ".".join(parts[-length:])) in KINDS:
            return dict(KINDS[end])
    if isinstance(default, bool):
        return {"type": "boolean"}
    if isinstance(default, str):
        return {"type": "string"}
    raise ValueError(f"{path}: say in KINDS what it may be")


def make_schema(values: list[Value]) -> dict[str, Any]:
    root: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of lmmpress",
        "type": "object",
        "additionalProperties": False,
        "properties": {"global": {"type": "object", "description": "Of a chart that this one is a part of; not used"}},
    }
    for value in values:
        at = root
        *above, key = value.path.split(".")
        for part in above:
            empty = {"type": "object", "additionalProperties": False, "properties": {}}
            at = at["properties"].setdefault(part, empty)
        kind = _outside(value.path) or kind_of(value.path, value.default)
        at["properties"][key] = {"description": value.description} | kind
    definitions: dict[str, Any] = {}
    for model in (Profile, TriggerSettings):
        for key, one in model.model_json_schema()["$defs"].items():
            if definitions.setdefault(key, one) != one:
                raise ValueError(f"{key}: the cluster profile and the trigger's settings mean different things by it")
    root["definitions"] = {key: _plain(one) for key, one in sorted(definitions.items())}
    _leave_to_the_chart(root["definitions"])
    return root


def _leave_to_the_chart(definitions: dict[str, Any]) -> None:
    """Take away from the trigger's settings what the chart fills in by itself."""
    for key in ("host", "port"):
        del definitions["ServerSettings"]["properties"][key]


def _outside(path: str) -> dict[str, Any] | None:
    """What other parts of lmmpress say is allowed there."""
    profile: dict[str, Any] = _plain({key: one for key, one in Profile.model_json_schema().items() if key != "$defs"})
    if path == "profile":
        return profile
    if path == "profiles":
        names = {"pattern": "^[-._a-zA-Z0-9]+$", "not": {"const": "cluster"}}
        return {"type": "object", "propertyNames": names, "additionalProperties": profile}
    if path == "trigger.settings":
        settings = _plain({key: one for key, one in TriggerSettings.model_json_schema().items() if key != "$defs"})
        # the chart knows the first two, a pod has none of the others
        for key in ("store", "tracking", "runs", "context"):
            del settings["properties"][key]
        return {"type": "object", "additionalProperties": False, "properties": settings["properties"]}
    if path == "plans":
        plan = {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: {} for key in Plan.model_json_schema()["properties"]},
        }
        return {"type": "object", "propertyNames": {"pattern": "^[-._a-zA-Z0-9]+$"}, "additionalProperties": plan}
    return None


def _plain(schema: Any) -> Any:
    """Pydantic's schema as draft 7, which every Helm reads; numbers pass for strings, as the profile takes them."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            kept[key] = {name: _plain(one) for name, one in value.items()}
        elif key == "$ref":
            kept[key] = value.replace("#/$defs/", "#/definitions/")
        elif key not in UNUSED:
            kept[key] = _plain(value)
    if kept.get("type") == "string" and "enum" not in kept and "const" not in kept:
        kept["type"] = ["string", "number"]
    return kept


def made(chart: Path = CHART) -> dict[Path, str]:
    """What the files should hold."""
    values = read_values(chart / "values.yaml")
    readme = chart / "README.md"
    schema = json.dumps(make_schema(values), indent=2, ensure_ascii=False) + "\n"
    return {chart / "values.schema.json": schema, readme: make_readme(readme.read_text("utf-8"), values)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [path for path, text in made().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if not check:
            path.write_text(made()[path], "utf-8")
        print(f"{path}: {'is not current' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
