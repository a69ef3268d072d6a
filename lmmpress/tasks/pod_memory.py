"""Warns of pods whose memory is below what their part needs: such a pod does not fail, it crawls, or it is killed."""

import re
from collections.abc import Iterable

from lmmpress.axes import axis_named
from lmmpress.errors import UserError
from lmmpress.plan import Plan
from lmmpress.printing.numbers import in_gib
from lmmpress.pruning.memory import Need, needs_without_model
from lmmpress.tasks.cluster_profile import Engine, Pod, Profile
from lmmpress.tasks.granularity import Granularity
from lmmpress.tasks.reached_model import reached_anatomy

_EXECUTOR = 48 << 20  # bytes of Kubeflow's SDK, which starts a task in its pod
_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_UNITS |= {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


def memory_warnings(plan: Plan, profile: Profile, granularity: Granularity) -> list[str]:
    """A line for each component of a plan's pipeline whose pods get less memory than their part needs at least.

    The limit counts, or the request where there is no limit. If this machine does not reach the model, only what every
    process needs before it loads one is counted.
    """
    parts = _components(plan, granularity)
    set_for = {name: _memory_of(profile.pod(name)) for name in parts}
    given = {name: memory for name, memory in set_for.items() if memory}
    if not given:
        return []  # nothing is asked for, so nothing is computed, which takes a few seconds
    gpus = {name: profile.pod(name).gpus or 0 for name in given}
    needs = _needs(plan, sorted({max(1, plan.distillation.processes, count) for count in gpus.values()}))
    found = []
    for name, (key, quantity) in given.items():
        need = needs[max(1, plan.distillation.processes, gpus[name])][parts[name]]
        least = need.process_with_gpu if gpus[name] else need.process
        least += _EXECUTOR if profile.engine == Engine.kubeflow else 0
        if bytes_of(quantity) < least:
            found.append(
                f"{name}: {key} is {quantity}, and its pods need {in_gib(least)} at least, without their rows: they "
                "would crawl or be killed (`lmmpress plan` shows what each part needs)"
            )
    return found


def bytes_of(quantity: str) -> float:
    """The bytes of a quantity of Kubernetes, such as 16Gi."""
    number, unit = re.fullmatch(r"([\d.]+)([a-zA-Z]*)", quantity).groups()  # type: ignore[union-attr]  # a checked one
    return float(number) * _UNITS[unit]


def _components(plan: Plan, granularity: Granularity) -> dict[str, str]:
    """The components of a plan's pipeline, and the part that each makes."""
    at_end = {"compare": "compare"} if plan.compare else {}
    if granularity == Granularity.stage:
        return {name: name for name in ("prepare", "stage", "publish")} | at_end
    cuts = {axis_named(stage.axis).component_name: "prune" for stage in plan.stages}
    before, after = ("prepare", "steps", "due", "importance"), ("distill", "evaluate", "gate", "publish")
    return {name: name for name in before} | cuts | {name: name for name in after} | at_end


def _memory_of(pod: Pod) -> tuple[str, str] | None:
    """The setting that decides how much memory a pod gets, and its value; None if none does."""
    for key, resources in (("limits.memory", pod.limits), ("requests.memory", pod.requests)):
        if resources and resources.memory:
            return key, resources.memory
    return None


def _needs(plan: Plan, processes: Iterable[int]) -> dict[int, dict[str, Need]]:
    """What each part needs, by the number of processes that distil on one machine."""
    from lmmpress.pruning.amounts import with_numbers
    from lmmpress.pruning.sizes import predict, predict_memory

    anatomy = reached_anatomy(plan)
    try:
        if anatomy is not None:
            plan = with_numbers(plan, anatomy)
            sizes = predict(anatomy, plan)
    except UserError:  # the first task says what is wrong with the plan
        anatomy = None
    if anatomy is None:
        return {count: {need.part: need for need in needs_without_model()} for count in processes}
    return {count: {need.part: need for need in predict_memory(anatomy, plan, sizes, count)} for count in processes}
