"""A plan as the parameters of a pipeline, and back.

What people change between two runs are parameters of their own, which the pages of Kubeflow show and compare; the rest
of the plan travels in one, as the plan has it. Nothing is said twice, so nothing can be contradicted. Numbers may come
back as floats: that is what a pipeline makes of them inside of lists and mappings.
"""

from functools import reduce
from operator import getitem
from typing import Any

from lmmpress.axes import axes
from lmmpress.errors import UserError
from lmmpress.plan import ADDRESSES, Plan, parse_plan

NUMBERS: dict[str, tuple[str, ...]] = {
    "alpha": ("tolerance", "alpha"),
    "seed": ("seed",),
    "epochs": ("distillation", "epochs"),
    "learning_rate": ("distillation", "learning_rate"),
    "batch_size": ("distillation", "batch_size"),
}


def arguments_of(plan: Plan, name: str) -> dict[str, Any]:
    """The arguments that ask a pipeline for a plan; `name` is what the compressed model is registered as."""
    whole = plan.model_dump(mode="json")
    arguments: dict[str, Any] = {key: whole[key] for key in ADDRESSES} | {"name": name}
    for number, path in NUMBERS.items():
        arguments[number] = reduce(getitem, path, whole)
    for stage in plan.stages:
        arguments |= {f"{stage.axis}_step": stage.step, f"{stage.axis}_max": stage.max}
    # what a plan need not say, a pipeline need not carry; and it has no word for None, which is always a default
    rest = plan.model_dump(mode="json", exclude_defaults=True, exclude={"stages", *ADDRESSES})
    for *sections, key in NUMBERS.values():
        reduce(lambda place, section: place.get(section, {}), sections, rest).pop(key, None)
    return arguments | {"settings": {key: value for key, value in rest.items() if value != {}}}


def plan_of(stages: list[str], settings: dict[str, Any], **arguments: Any) -> Plan:
    """The plan that a pipeline of these stages was asked for.

    Raises UserError where the settings say what is a parameter of its own, or the plan is none.
    """
    raw = {key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()}
    asked = {path: arguments[number] for number, path in NUMBERS.items()}
    asked |= {(key,): arguments[key] for key in ADDRESSES}
    asked |= {("stages", axis, key): arguments[f"{axis}_{key}"] for axis in stages for key in ("step", "max")}
    for path, value in asked.items():
        *sections, key = path
        place = raw
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise UserError(f"settings.{'.'.join(sections)} is no section of a plan")
        if key in place:
            raise UserError(f"settings.{'.'.join(path)} is a parameter of the pipeline; leave it out of settings")
        place[key] = value
    return parse_plan(raw, where="the pipeline's parameters")


def steps_of(plan: Plan) -> dict[str, list[int]]:
    """The numbers of the steps that each axis' stage makes at most; none where the plan has no such stage."""
    return {axis.name: [] for axis in axes()} | {
        stage.name: list(range(plan.most_steps(stage))) for stage in plan.stages
    }
