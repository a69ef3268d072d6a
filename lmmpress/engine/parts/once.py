"""A part is done once: its result is stored under a name that is computed from its inputs."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmmpress.engine.materials import Materials
from lmmpress.engine.part_names import VERSIONS, Part
from lmmpress.errors import UserError
from lmmpress.plan import digest_of
from lmmpress.store.records import OF, Subjects

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """What the store holds of a part: the values that the part gave, and the seconds that it took."""

    name: str
    values: dict[str, Any]
    seconds: float


def once(materials: Materials, part: Part, inputs: Inputs, work: Callable[[int], dict[str, Any]]) -> Record:
    """The stored result of a part, or that of doing it now, with a seed drawn from the part's name.

    Raises UserError where the part is not done and is another task's to do.
    """
    name = name_of(part, inputs)
    values = materials.store.read_record(name)
    if values is None:
        if part not in materials.makes:
            raise UserError(f"{materials.store.root_address}: {part} is not done yet; another task of the run does it")
        begun = time.perf_counter()
        made = work(int(name[-15:], 16))
        made["seconds"] = time.perf_counter() - begun
        made[OF] = _subjects(inputs).model_dump()
        # where another process was first, its answer is the one that everybody goes on from
        values = materials.store.write_record(name, made)
    return Record(name, values, values["seconds"])


def name_of(part: Part, inputs: Inputs) -> str:
    """The name of a part with these inputs."""
    return f"{part}-{digest_of(inputs | {'part': part, 'version': VERSIONS[part]})}"


def inputs_of(materials: Materials, checkpoint: str, data: str, **others: Any) -> Inputs:
    """The inputs that importance and distillation both depend on, and others."""
    return others | {
        "checkpoint": checkpoint,
        "teacher": materials.original,
        "data": data,
        "dtype": str(materials.dtype),
        "seed": materials.plan.seed,
    }


def unreadable(materials: Materials, record: Record, what: str) -> UserError:
    """The error for a record that this lmmpress cannot have written."""
    return UserError(f"{materials.store.root_address}: records/{record.name}.json {what}; remove it")


def _subjects(inputs: Inputs) -> Subjects:
    """The checkpoints and the split that a part's result is computed from."""
    checkpoints = inputs.get("checkpoints") or [inputs["checkpoint"]]
    return Subjects(checkpoints=checkpoints, data=[inputs["data"]] if "data" in inputs else [])
