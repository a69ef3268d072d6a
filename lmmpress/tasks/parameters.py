"""A plan as the parameters of a pipeline, and back.

Settings that people change between two runs are parameters of their own, which the pages of Kubeflow show and compare:
some numbers, and the amounts of each stage, `<axis>_step` and `<axis>_max`: numbers, or shares as texts. `stages` may
give the stages as a list instead; it must if a mapping cannot express them, or if they have amounts by tower. The rest
of the plan is in `settings`, in the plan's form. A value that is given twice must be the same. Numbers may come back as
floats: a pipeline changes them so inside of lists and mappings.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any

from lmmpress.errors import UserError
from lmmpress.plan import ADDRESSES, Plan, parse_plan
from lmmpress.settings.amounts import share_text
from lmmpress.stages import Stage, stage_names

NUMBERS: dict[str, tuple[str, ...]] = {
    "alpha": ("tolerance", "alpha"),
    "seed": ("seed",),
    "epochs": ("distillation", "epochs"),
    "learning_rate": ("distillation", "learning_rate"),
    "batch_size": ("distillation", "batch_size"),
}

AUTO = 0.0
"""What `distillation.learning_rate: auto` is as a parameter, which can only be a number."""

AMOUNTS = ("step", "max")


def arguments_of(plan: Plan, name: str) -> dict[str, Any]:
    """The arguments of a pipeline for a plan; the compressed model is registered as `name`."""
    whole = plan.model_dump(mode="json")
    arguments: dict[str, Any] = {key: whole[key] for key in ADDRESSES} | {"name": name}
    for number, path in NUMBERS.items():
        value = reduce(getitem, path, whole)
        arguments[number] = AUTO if value == "auto" else value
    listed = [] if _has_amounts(plan) else [stage.as_written() for stage in plan.stages]
    arguments |= amounts_of(plan) | {"stages": listed}
    # defaults are left out: a pipeline cannot express None, which is always a default
    rest = plan.model_dump(mode="json", exclude_defaults=True, exclude={"stages", *ADDRESSES})
    for *sections, key in NUMBERS.values():
        reduce(lambda place, section: place.get(section, {}), sections, rest).pop(key, None)
    return arguments | {"settings": {key: value for key, value in rest.items() if value != {}}}


def _has_amounts(plan: Plan) -> bool:
    """Whether two parameters for each stage can express the stages of a plan."""
    return plan.is_mapping and not any(stage.by_tower for stage in plan.stages)


def amounts_of(plan: Plan) -> dict[str, Any]:
    """The amounts of each stage by the names of their parameters; empty if they cannot express the stages."""
    if not _has_amounts(plan):
        return {}
    return {f"{stage.axis}_{key}": getattr(stage, key) for stage in plan.stages for key in AMOUNTS}


def as_compiled(stages: Sequence[Stage], approve: Collection[str], compare: bool = False) -> list[dict[str, Any]]:
    """The stages of a plan as a list, which a compiled pipeline gives its first task: the pipeline's tasks are made for
    these. A stage after which the pipeline waits for an approval says so, and the last one whether a comparison comes
    at the end."""
    listed = [stage.as_written() | ({"approve": True} if stage.name in approve else {}) for stage in stages]
    if compare and listed:
        listed[-1]["compare"] = True
    return listed


def amounts_text(amounts: Mapping[str, Any]) -> str:
    """Amounts as one text, the form that the first task takes; a pipeline puts channels in place of the numbers."""
    return " ".join(f"{name}={number}" for name, number in amounts.items())


def plan_of(
    compiled: Sequence[Mapping[str, Any]],
    amounts: str,
    stages: Sequence[Any] | str,
    settings: dict[str, Any] | str,
    **arguments: Any,
) -> Plan:
    """The plan that the parameters of a pipeline describe.

    `compiled` are the stages of the plan that it was compiled from, as a list. `amounts` are the parameters
    `<axis>_step` and `<axis>_max` in one text, `block_step=4 block_max=40`; `stages` is the parameter of that name.
    `stages` and `settings` may be texts of JSON, because all parameters of Argo are texts.

    Raises UserError if the settings repeat a parameter of the pipeline, if the stages are not those that the pipeline
    was compiled for or contradict their amounts, and if the plan is not valid.
    """
    given = _amounts_in(amounts)
    rest: dict[str, Any] = _decoded("settings", settings, dict)
    stages = _decoded("stages", stages, list)
    raw = {key: dict(value) if isinstance(value, dict) else value for key, value in rest.items()}
    if "stages" in raw:
        raise UserError("settings.stages is a parameter of the pipeline; leave it out of settings")
    asked: dict[tuple[str, ...], Any] = {path: arguments[number] for number, path in NUMBERS.items()}
    if str(arguments["learning_rate"]) in (str(AUTO), "0"):  # Argo has texts, and a person may write 0
        asked[NUMBERS["learning_rate"]] = "auto"
    asked |= {(key,): arguments[key] for key in ADDRESSES}
    asked[("stages",)] = list(stages) or _stages_by_amounts(compiled, given)
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
    plan = parse_plan(raw, where="the pipeline's parameters")
    _check_order(compiled, plan)
    _check_approvals(compiled, plan)
    _check_comparison(compiled, plan)
    for stage, before in zip(plan.stages, compiled, strict=True):
        _check_amounts(stage, before, given)
    return plan


def _decoded(name: str, value: Any, form: type) -> Any:
    """A parameter that is no text, from its text; UserError if the text is not of that form."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
        if isinstance(found, form):
            return found
        reason = f"it is no {'mapping' if form is dict else 'list'}"
    except ValueError as error:
        reason = str(error)
    raise UserError(f"the pipeline's parameters: {name} is no such JSON: {reason}")


def _amounts_in(text: str) -> dict[str, float | str]:
    """The parameters in a text; UserError if one has no number and no share."""
    found: dict[str, float | str] = {}
    for one in text.split():
        name, _, number = one.partition("=")
        try:
            found[name] = share_text(number) if "%" in number else float(number)
        except ValueError:
            raise UserError(
                f"the pipeline's parameters: {name} is no number: {number}, nor a share such as 25%"
            ) from None
    return found


def _stages_by_amounts(compiled: Sequence[Mapping[str, Any]], amounts: Mapping[str, float | str]) -> dict[str, Any]:
    """Stages as a mapping of their amounts; UserError if the pipeline has no such parameters."""
    if compiled and not amounts:
        names = ", ".join(_names(compiled))
        raise UserError(f"the pipeline's parameters: stages is empty; give the list of {names}, in this order")
    return {one["axis"]: {key: amounts[f"{one['axis']}_{key}"] for key in AMOUNTS} for one in compiled}


def _check_order(compiled: Sequence[Mapping[str, Any]], plan: Plan) -> None:
    """Raise UserError if a plan's stages are not those that the tasks were compiled for; towers and amounts may
    differ."""
    wanted, found = _names(compiled), [stage.name for stage in plan.stages]
    if found != wanted:
        raise UserError(
            f"the pipeline's parameters: stages asks for {', '.join(found)}, and the pipeline was compiled for "
            f"{', '.join(wanted)}; compile the plan anew"
        )


def _check_approvals(compiled: Sequence[Mapping[str, Any]], plan: Plan) -> None:
    """Raise UserError if a plan asks for other approvals than the pipeline was compiled with: it would not wait where
    it should. Pipelines of older versions have none."""
    waits = [name for name, stage in zip(_names(compiled), compiled, strict=True) if stage.get("approve")]
    if sorted(plan.pipeline.approve) != sorted(waits):
        asked, made = (", ".join(names) or "none" for names in (plan.pipeline.approve, waits))
        raise UserError(
            f"the pipeline's parameters: settings.pipeline.approve asks for {asked}, and the pipeline was compiled for "
            f"{made}; compile the plan anew"
        )


def _check_comparison(compiled: Sequence[Mapping[str, Any]], plan: Plan) -> None:
    """Raise UserError if a plan asks for a comparison and the pipeline has no task for it, or the other way round."""
    made = any(stage.get("compare") for stage in compiled)
    if compiled and plan.compare != made:
        raise UserError(
            f"the pipeline's parameters: settings.compare is {'true' if plan.compare else 'false'}, and the pipeline "
            f"was compiled {'with' if made else 'without'} a comparison at its end; compile the plan anew"
        )


def _check_amounts(stage: Stage, before: Mapping[str, Any], amounts: Mapping[str, float | str]) -> None:
    """Raise UserError if a list of stages has one amount, and the amount's own parameter has another. A parameter with
    the value that the pipeline was compiled with does not count: nobody has set it."""
    for key in AMOUNTS:
        name = f"{stage.axis}_{key}"
        given = amounts.get(name, before[key])
        if given not in (before[key], getattr(stage, key)):
            said = f"{given:g}" if isinstance(given, float) else given
            raise UserError(
                f"the pipeline's parameters: {name} is {said}, and stages says {getattr(stage, key)}; give "
                "one of the two"
            )


def _names(compiled: Sequence[Mapping[str, Any]]) -> list[str]:
    return stage_names(one["axis"] for one in compiled)
