"""What the chart renders: the case `minimal` as a whole, and what differs from it in every other case.

`pytest tests/chart/test_chart_golden.py --write-docs` writes the files anew.
"""

import difflib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.chart import Object, in_all_cases, render

GOLDEN = Path(__file__).parent / "golden"
BASE = "minimal"
CONTEXT = 2  # lines around a change


class Readable(yaml.SafeDumper):
    """Writes a text of several lines in block style, and no anchors or aliases."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)

    def ignore_aliases(self, data: object) -> bool:
        return True


Readable.add_representer(str, Readable.represent_str)


def texts(case: str) -> dict[str, str]:
    """Each object of a case as YAML, by kind and name. Random values and files of the chart are masked."""
    found = {}
    for rendered in sorted(render(case), key=lambda one: (one["kind"], one["metadata"]["name"])):
        mask(rendered)
        text = yaml.dump(rendered, Dumper=Readable, sort_keys=True, width=120)
        found[f"{rendered['kind']} {rendered['metadata']['name']}"] = text
    return found


def mask(rendered: Object) -> None:
    if rendered["kind"] == "Secret":
        rendered["data"] = dict.fromkeys(rendered["data"], "(made at random)")
    if rendered["kind"] == "ConfigMap":
        for key in rendered["data"]:
            if key.endswith((".py", ".json")):
                rendered["data"][key] = "(a file of the chart)"


def whole(objects: dict[str, str]) -> str:
    return "---\n".join(objects.values())


def differences(base: dict[str, str], other: dict[str, str]) -> Iterator[str]:
    """Lines that show how the objects of a case differ from those of the base. The hash covers the whole case, so that
    any change of it is noticed, also one that the base has too."""
    yield f"# sha256 of all objects: {hashlib.sha256(whole(other).encode()).hexdigest()}\n"
    yield from (f"removed: {name}\n" for name in base if name not in other)
    for name, text in other.items():
        if name not in base:
            yield f"added: {name}\n"
            yield from (f"+{line}" for line in text.splitlines(keepends=True))
        elif text != base[name]:
            yield f"changed: {name}\n"
            yield from hunks(base[name], text)


def hunks(was: str, now: str) -> Iterator[str]:
    """A unified diff without line numbers, which would change with every line above."""
    lines = difflib.unified_diff(was.splitlines(keepends=True), now.splitlines(keepends=True), n=CONTEXT)
    for number, line in enumerate(list(lines)[2:]):
        if not line.startswith("@@"):
            yield line
        elif number:
            yield "  ...\n"


@in_all_cases
def test_the_rendered_objects_are_the_recorded_ones(case: str, request: pytest.FixtureRequest) -> None:
    base = texts(BASE)
    now = whole(base) if case == BASE else "".join(differences(base, texts(case)))
    path = GOLDEN / (f"{case}.yaml" if case == BASE else f"{case}.diff")
    if request.config.getoption("--write-docs"):
        path.write_text(now, "utf-8")
    was = path.read_text("utf-8")
    change = "\n".join(difflib.unified_diff(was.splitlines(), now.splitlines(), "was", "is", lineterm="", n=6))
    assert was == now, f"{path.name}: if this is meant, run this file with --write-docs:\n{change}"
