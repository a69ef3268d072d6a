"""Computes each part once: its result is stored under a name that is a hash of its inputs."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lmmpress.engine.materials import Materials
from lmmpress.engine.part_names import VERSIONS, Part
from lmmpress.engine.parts.machine import gauge_for, this_machine
from lmmpress.errors import UserError
from lmmpress.host.energy_use import Energy, total, watching
from lmmpress.host.peak_memory import measuring_memory
from lmmpress.lmm.at_once import remembering
from lmmpress.plan import digest_of
from lmmpress.progress import part as now_making
from lmmpress.result import Machine
from lmmpress.store.records import OF, Subjects

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """The stored result of a part: its values, the seconds that computing it took; the machine that computed it and the
    energy that this took, if they are noted."""

    name: str
    values: dict[str, Any]
    seconds: float
    machine: Machine | None = None
    energy: Energy | None = None


def once(materials: Materials, part: Part, inputs: Inputs, work: Callable[[int], dict[str, Any]]) -> Record:
    """The stored result of a part; if there is none, run `work` with a seed derived from the part's name and store it.

    Raises UserError if there is no result and another task has to compute it.
    """
    name = name_of(part, inputs)
    values = materials.store.read_record(name)
    if values is None and part in materials.elsewhere:
        materials.elsewhere[part](name)
        values = materials.store.read_record(name)
    if values is None:
        if part not in materials.makes or part in materials.elsewhere:
            raise UserError(f"{materials.store.root_address}: {part} is not done yet; another task of the run does it")
        begun = time.perf_counter()
        with (
            watching(gauge_for(materials, part)) as watched,
            measuring_memory() as peak,
            remembering(materials.lowered) as at_once,
            now_making(part),
        ):
            result = work(int(name[-15:], 16))
        result["seconds"] = time.perf_counter() - begun
        energy = watched.energy
        if energy and materials.meeting:
            energy = energy.on(materials.meeting.machines.count)
        result["energy"] = energy and energy.model_dump(mode="json")
        materials.spent[part] = materials.spent.get(part, 0.0) + result["seconds"]
        result["machine"] = this_machine(peak, at_once).model_dump()
        result[OF] = _subjects(inputs).model_dump()
        # if another process has written the record first, every process uses that record
        values = materials.store.write_record(name, result)
    return Record(name, values, values["seconds"], _machine(values), energy_in(values.get("energy")))


def _machine(values: dict[str, Any]) -> Machine | None:
    """The machine in a record; None in records of older versions, and if a stranger has changed it."""
    try:
        return Machine.model_validate(values["machine"])
    except (KeyError, ValidationError):
        return None


def energy_in(value: Any) -> Energy | None:
    """The energy in a record; None in records of older versions, where it is unknown, and if a stranger has changed
    it."""
    try:
        return Energy.model_validate(value)
    except ValidationError:
        return None


def name_of(part: Part, inputs: Inputs) -> str:
    """The name of a part with these inputs."""
    return f"{part}-{digest_of(inputs | {'part': part, 'version': VERSIONS[part]})}"


def inputs_of(materials: Materials, checkpoint: str, data: str, **others: Any) -> Inputs:
    """The inputs of importance and distillation: those that both have, and `others`."""
    return (
        others
        | materials.taught
        | {
            "checkpoint": checkpoint,
            "teacher": materials.original,
            "data": data,
            "dtype": str(materials.dtype),
            "seed": materials.plan.seed,
        }
    )


def unreadable(materials: Materials, record: Record, what: str) -> UserError:
    """The error for a record that this version of lmmpress cannot read."""
    return UserError(f"{materials.store.root_address}: records/{record.name}.json {what}; remove it")


def _subjects(inputs: Inputs) -> Subjects:
    """The checkpoints and the split that a part's result is computed from."""
    checkpoints = inputs.get("checkpoints") or [inputs["checkpoint"]]
    return Subjects(checkpoints=checkpoints, data=[inputs["data"]] if "data" in inputs else [])


def energy_by_part(records: Mapping[str, Sequence[Record]]) -> dict[str, Energy]:
    """The energy of the records of each part: of those parts where it is known of all of them."""
    known = {part: [one.energy for one in of if one.energy] for part, of in records.items()}
    found = {part: total(energies) for part, energies in known.items() if len(energies) == len(records[part])}
    return {part: energy for part, energy in found.items() if energy}
