"""Suggests the numbers of a plan: measures what short cuts lose, and writes a plan that a run takes."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

from lmmpress.engine.advised import Advice, check_new, plan_of, write_plan
from lmmpress.engine.expected_time import expected, pace_of
from lmmpress.engine.materials import Materials
from lmmpress.engine.row_checks import check_all_rows
from lmmpress.engine.run import Run, check, check_original, identity_of
from lmmpress.engine.run_splits import split_of, splits_of
from lmmpress.engine.sensitivity import Sensitivity, Way, measure, ways_of
from lmmpress.engine.suggestion import SuggestedStage, suggest
from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy, count_by_tower
from lmmpress.lmm.read_anatomy import anatomy_of, read_config
from lmmpress.plan import Plan
from lmmpress.progress import doing
from lmmpress.pruning.amounts import nearest_legal
from lmmpress.pruning.sizes import predict, towers_of
from lmmpress.store import Store, open_store
from lmmpress.store.address import is_store

_WHOLE = 100  # percent


def advise(plan: Plan, out: Path | None = None, target: float | None = None, model: str | None = None) -> Advice:
    """Measure what cuts of the plan's model lose, suggest stages, and write the suggested plan to the new file `out`.

    The towers that the plan cuts shall become `target` times smaller; without it each stage removes as much as the
    plan's. `model` is the address to write, if it is not the plan's. The results lie in a store beside `out`, and the
    same call carries on from them. Raises UserError before any work if plan, model and data do not fit together, if
    the file exists, or if the target cannot be reached.
    """
    if out is not None:
        check_new(out)
    with doing("prepare"):
        fits = check(plan)
        anatomy = anatomy_of(read_config(fits.teacher))
        if not fits.plan.stages:
            raise UserError("the plan has no stages; name the axes to cut, each with a step and a max")
        most = maxima(fits.plan, anatomy, target)
    with _store_of(out) as store:
        with doing("prepare"):
            checked = check_all_rows(fits.plan, fits.teacher, store)
            if checked:
                checked.note(store)
            original = store.add_checkpoint(fits.teacher)
        found = _measured(fits.plan, store, fits.teacher, original)
        stages = suggest(found, most)
        largest = max((one for one in found.losses if one.way == stages[0].way), key=lambda one: one.removed)
        pace = pace_of(fits.plan, store, original, largest.checkpoint)
        rows = len(split_of(fits.plan, "distill").rows)
        time = expected(fits.plan, stages, found, pace, rows, _gpus(fits.plan))
        raw = plan_of(plan, stages, model)
        sizes = predict(anatomy, with_stages(fits.plan, stages))
        before, after = (_of_towers(fits.plan, anatomy, size.parameters_by_tower) for size in (sizes[0], sizes[-1]))
        advice = Advice(found, tuple(stages), time, before / after, raw, out)
        if out is not None:
            write_plan(advice, out)
    return advice


def _measured(plan: Plan, store: Store, teacher: Path, original: str) -> Sensitivity:
    """What cuts lose; the models in memory are let go of with the materials."""
    materials = Materials(plan, store, original, splits=splits_of(plan))
    key = identity_of(plan, teacher, original, None).run_key
    check_original(Run(plan, key, original, materials))
    return measure(materials)


def _gpus(plan: Plan) -> int:
    """How many GPUs a run here uses."""
    import torch

    return plan.distillation.processes if torch.cuda.is_available() else 0


@contextmanager
def _store_of(out: Path | None) -> Iterator[Store]:
    """The store of the results: a folder beside the file, which stays, or one that is removed at the end. The plan's
    own store is left alone, since cuts that no run makes are of use to nobody else."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="lmmpress-advise-") as passing:
            yield open_store(passing)
        return
    folder = store_beside(out)
    if folder.exists() and not is_store(str(folder)) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is no store; the results go there: choose another file with -o")
    yield open_store(str(folder))


def store_beside(out: Path) -> Path:
    """Where the results of advice lie that is written to a file."""
    return out.with_name(f"{out.name}.store")


def maxima(plan: Plan, anatomy: Anatomy, target: float | None) -> dict[Way, int]:
    """How much each stage may remove: what all stages of the plan along its way may together, or a share of its width,
    the same for all, that makes the towers `target` times smaller."""
    ways = ways_of(plan, anatomy)
    if target is None:
        found = dict.fromkeys(ways, 0)
        for way in ways:
            for stage in plan.stages:
                towers = {tower or "largest": tower for tower in plan.stage_towers(stage)}
                if stage.axis == way.axis and way.tower in towers:
                    found[way] += stage.numbers(towers[way.tower])[1]
        return found
    if not target > 1:
        raise UserError(
            f"--target {target:g}: it says how many times smaller the towers become: more than 1, such as 4"
        )
    if any(way.tower == "largest" for way in ways):
        raise UserError("--target needs towers by name: with towers: [largest] a maximum counts over all of them")
    low, high = 1, _WHOLE - 1  # the smallest share that is enough lies between them
    if (best := ratio_at(plan, anatomy, ways, high)) < target:
        raise UserError(f"--target {target:g}: these stages make the towers {best:.1f} times smaller at most")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if ratio_at(plan, anatomy, ways, middle) >= target else (middle + 1, high)
    return shares_at(ways, high)


def shares_at(ways: list[Way], percent: int) -> dict[Way, int]:
    return {way: nearest_legal(Fraction(percent, _WHOLE), way.width, way.unit) for way in ways}


def ratio_at(plan: Plan, anatomy: Anatomy, ways: list[Way], percent: int) -> float:
    """How many times smaller the towers become if each stage removes this share of its width."""
    stages = [SuggestedStage(way, most, most, 0.0, "") for way, most in shares_at(ways, percent).items()]
    sizes = predict(anatomy, with_stages(plan, stages))
    after = _of_towers(plan, anatomy, sizes[-1].parameters_by_tower)
    return _of_towers(plan, anatomy, count_by_tower(anatomy)) / after


def _of_towers(plan: Plan, anatomy: Anatomy, parameters: dict[str, int]) -> int:
    """The parameters of the towers that a plan cuts."""
    return sum(parameters[name] for name in towers_of(plan, anatomy))


def with_stages(plan: Plan, stages: list[SuggestedStage]) -> Plan:
    return Plan.model_validate(plan_of(plan, stages))
