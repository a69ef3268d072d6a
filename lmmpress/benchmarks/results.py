"""Reads the results that a harness writes. Harnesses run code of tasks, so the file is untrusted."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lmmpress.benchmarks.records import LARGEST, Benchmark
from lmmpress.errors import UserError
from lmmpress.files.strict_json import read_mapping
from lmmpress.printing.one_line import printable
from lmmpress.progress import say

_MOST = 10_000  # numbers of one run
_STDERR = "_stderr"


def results_in(folder: Path) -> Path | None:
    """The file of results that a harness has written into its own, new folder; None if there is not exactly one."""
    files = [path for path in folder.rglob("*.json") if "results" in path.name and path.is_file()]
    return files[0] if len(files) == 1 else None


def read_results(file: Path, harness: str, version: str) -> list[Benchmark]:
    """The numbers in a file of results, tasks in the harness' order.

    A value that is no finite number is left out, and said. Raises UserError if the file is not what harnesses write.
    """
    written = read_mapping(file, LARGEST, f"the results of {harness} {version}", nan_as_null=True)
    try:
        numbers = list(_numbers(written, harness, version))
    except (ValidationError, AttributeError, TypeError, OverflowError):
        raise UserError(f"the results of {harness} {version} are not in a form that lmmpress knows") from None
    if not numbers:
        raise UserError(f"the results of {harness} {version} hold no number")
    return numbers


def _numbers(written: dict[str, Any], harness: str, version: str) -> Iterator[Benchmark]:
    """Every metric of every task: the key of a value is `metric,filter`."""
    count = 0
    for task, values in written.get("results", {}).items():
        few_shot = _of(written, "n-shot").get(task)
        task_version = _version(written, task)
        for key, value in values.items():
            metric, comma, filter_name = key.partition(",")
            if not comma or _STDERR in metric:
                continue
            if (number := _finite(value)) is None:
                say(f"{harness}: the {metric} of {task} is no number, and left out")
                continue
            count += 1
            if count > _MOST:
                raise UserError(f"the results of {harness} {version} hold more than {_MOST} numbers")
            yield Benchmark(
                harness=harness,
                harness_version=version,
                task=printable(task),
                task_version=task_version,
                metric=printable(metric),
                filter=printable(filter_name),
                value=number,
                stderr=_finite(values.get(f"{metric}{_STDERR},{filter_name}")),
                samples=_samples(written, task, key),
                few_shot=_count(few_shot),
                higher_is_better=_better(written, task, metric),
            )


def _of(written: dict[str, Any], name: str) -> dict[str, Any]:
    found = written.get(name)
    return found if isinstance(found, dict) else {}


def _finite(value: Any) -> float | None:
    """A number; a harness writes texts such as N/A in the place of one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _count(value: Any) -> int | None:
    """A count; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _version(written: dict[str, Any], task: str) -> str | None:
    """The version that a task's metadata says; else what the harness says, which may be that it comes from YAML."""
    metadata = _of(_of(written, "configs"), task).get("metadata")
    for said in metadata if isinstance(metadata, list) else [metadata]:
        if isinstance(said, dict) and isinstance(said.get("version"), int | float | str):
            return printable(str(said["version"]))
    version = _of(written, "versions").get(task)
    return None if version is None else printable(str(version))


def _samples(written: dict[str, Any], task: str, key: str) -> int | None:
    """How many rows a value was measured on: of a group, those of its tasks that have the metric."""
    values = written["results"][task]
    said = (
        _of(values, "sample_count").get(key),
        _of(_of(written, "n-samples"), task).get("effective"),
        values.get("sample_len"),
    )
    return next((count for count in map(_count, said) if count is not None), None)


def _better(written: dict[str, Any], task: str, metric: str) -> bool | None:
    found = _of(_of(written, "higher_is_better"), task).get(metric)
    return found if isinstance(found, bool) else None
