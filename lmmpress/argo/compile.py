"""From a plan and a cluster profile to a file with a WorkflowTemplate, and to a Workflow that runs it at once."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lmmpress.argo.template import workflow_template
from lmmpress.errors import UserError
from lmmpress.host.whole_file import write_whole
from lmmpress.plan import Plan
from lmmpress.tasks.addresses import missing_addresses, reachable_arguments, unreachable
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Granularity
from lmmpress.tasks.parameters import arguments_of

_NUMBER_LIKE = re.compile(r"[-+.\d]")
_MUTEXES = (3, 6)
"""The first version of Argo that knows a list of mutexes; 4.0 knows nothing else."""


def compile_plan(plan: Plan, name: str, profile: Profile, granularity: Granularity, target: Path) -> list[str]:
    """Write the WorkflowTemplate of a plan, whole or not at all, and return the warnings for a person.

    Paths of this machine are no addresses in a cluster: such a parameter gets no default and has to be given when a
    workflow is made. Raises UserError if the target cannot be written.
    """
    if target.suffix not in (".yaml", ".yml"):
        raise UserError(f"{target}: a compiled workflow is a .yaml file")
    arguments = arguments_of(plan, name)
    here_only = unreachable(arguments, profile)
    warnings = profile.warnings()
    warnings += missing_addresses(arguments, profile, "Argo asks for it when a workflow is made")
    template = workflow_template(plan, arguments, profile, granularity, here_only)
    try:
        write_whole(target, to_yaml(template.to_dict()))
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from None
    return warnings


def to_yaml(value: dict[str, Any]) -> str:
    """An object as YAML. Texts that any reader may take for numbers are quoted: 3e-05 is text to PyYAML, and a number
    to Kubernetes."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


class _Dumper(yaml.SafeDumper):
    """PyYAML's, with quotes round texts that begin like a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _NUMBER_LIKE.match(text) else None)


_Dumper.add_representer(str, _text)


def make_workflow(
    plan: Plan,
    name: str,
    profile: Profile,
    granularity: Granularity,
    submitter: str | None = None,
    version: tuple[int, int] | None = None,
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A Workflow of Argo's that runs a plan, as an object for Kubernetes' API. `version` is the controller's, if it is
    known; `labels` are put on the workflow and its pods. Raises UserError if the plan has an address that pods cannot
    reach."""
    arguments = reachable_arguments(plan, name, profile)
    made: dict[str, Any] = workflow_template(plan, arguments, profile, granularity, submitter=submitter).to_dict()
    metadata = made["metadata"]
    metadata["generateName"] = f"{metadata.pop('name')}-"
    metadata["labels"] |= labels or {}
    made["spec"]["podMetadata"] = {"labels": dict(labels or {})}
    if version and version < _MUTEXES:
        _as_one_mutex(made)
    return made | {"kind": "Workflow"}


def _as_one_mutex(workflow: dict[str, Any]) -> None:
    """Write mutexes as Argo 3.5 knows them, in place."""
    for template in workflow["spec"]["templates"]:
        if mutexes := template.get("synchronization", {}).pop("mutexes", None):
            template["synchronization"]["mutex"] = mutexes[0]
