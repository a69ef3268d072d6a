"""Warm runs: finds the run that a run starts from, and takes its schedule, the steps that it kept.

A run that has ended leaves a note in its store. What was found for a run is noted there, too, so that a run that is
resumed goes on along the same schedule, whatever has ended since.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from lmmpress.engine.algorithm import Planned, next_step, takes_over
from lmmpress.engine.run import identity_of
from lmmpress.errors import UserError
from lmmpress.files.digest import digest_checkpoint
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.read_anatomy import anatomy_of, read_config
from lmmpress.plan import PREVIOUS, Plan, digest_of
from lmmpress.progress import say
from lmmpress.result import Result, StepResult, jump_title
from lmmpress.settings.schedule import RunEnds, Schedule, ScheduledStep
from lmmpress.store import Store
from lmmpress.store.address import existing_store, is_store
from lmmpress.store.kinds import RECORDS, RUNS, stem
from lmmpress.store.records import ENDED, WARM, EndedNote, WarmNote
from lmmpress.store.run_state import DIGEST

_AT_LEAST = 4  # characters of a run key
_RUN = re.compile(rf"(?P<root>.+)/{RUNS.folder}/(?P<key>[0-9a-f]{{{_AT_LEAST},64}})/?", re.DOTALL)
_SAME_CUTS = ("stages", "towers")
_SAME_SEARCH = (*_SAME_CUTS, "tolerance")


@dataclass(frozen=True)
class Warmed:
    """A plan with the schedule that was found for it, if any. `name` is that of the note that keeps it, and `run_key`
    is the run's; both are empty for a plan that asks for no schedule. `found_in` is the store of the earlier run."""

    plan: Plan
    name: str = ""
    run_key: str = ""
    found_in: Store | None = None

    def note(self, store: Store) -> None:
        """Keep in the store of the run what was found, with what a jump carries over."""
        if self.name:
            if self.found_in and self.plan.schedule and self.plan.jumps.carry:
                _bring(self.plan.schedule, self.found_in, store)
            note = WarmNote(run_key=self.run_key, schedule=self.plan.schedule)
            store.write_record(self.name, note.model_dump(mode="json"))


def warmed(plan: Plan, store: Store | None, teacher: Path) -> Warmed:
    """Find the run that a plan starts from. `store` is the run's, if there is one already; `teacher` is the directory
    of the original.

    If there is no previous run, one line says so, and the plan stays as it is. Raises UserError if a named run is not
    there, has not ended, or does not fit.
    """
    if plan.start_from is None or plan.schedule is not None:
        return Warmed(plan)
    original = digest_checkpoint(teacher)
    gradual = identity_of(plan, teacher, original, store).run_key
    name = f"{WARM}{digest_of({'run': gradual, 'start_from': plan.start_from})}"
    known = store.read_record(name) if store else None
    found_in = None
    if known:
        schedule = WarmNote.model_validate(known).schedule
    else:
        schedule = find_schedule(plan, store, anatomy_of(read_config(teacher)))
        found_in = store if plan.start_from == PREVIOUS else _located(str(plan.start_from))[0]
    if schedule is None:
        say(f"start_from: {nothing_found(store)}; this run goes the gradual way")
        return Warmed(plan, name, gradual)
    say(f"warm: starts from run {schedule.run[:12]}, which kept {len(schedule.steps)} steps")
    warm = _with_schedule(plan, schedule)
    return Warmed(warm, name, identity_of(warm, teacher, original, store).run_key, found_in)


def nothing_found(store: Store | None) -> str:
    """Why there is no previous run, for a person."""
    where = store.root_address if store else "the store, which is new,"
    return f"{where} holds no ended run for a model of this shape with these stages, towers and tolerance"


def find_schedule(plan: Plan, store: Store | None, anatomy: Anatomy) -> Schedule | None:
    """The schedule of the run that a plan starts from; None if there is no previous one. UserError as in `warmed`."""
    if plan.start_from == PREVIOUS:
        return _previous(plan, store, anatomy) if store else None
    return _named(plan, str(plan.start_from), anatomy)


def start_of(plan: Plan, anatomy: Anatomy) -> str:
    """Which run a plan would start from, in a line for a person; empty for a plan that asks for none. UserError as in
    `warmed`."""
    if plan.start_from is None:
        return ""
    store = existing_store(plan.store) if plan.store and is_store(plan.store) else None
    schedule = find_schedule(plan, store, anatomy)
    if schedule is None:
        return f"start_from: {nothing_found(store)}: steps are made one by one"
    first = "one step"
    if len(schedule.steps) > 1:
        first = f"first a {jump_title(schedule.steps)}, then shorter ones if the gate does not accept it"
    return f"start_from: run {schedule.run[:12]}: {first}"


def note_ended(store: Store, key: str, plan: Plan, anatomy: Anatomy, result: Result) -> None:
    """Note in the store that the run with this key has ended, for runs that start from it. `anatomy` is the
    original's."""
    note = EndedNote(
        plan=plan.model_dump_json(),
        teacher=result.original.checkpoint,
        result=result.compressed.checkpoint,
        family=anatomy.family,
        shape=shape_of(anatomy),
        steps=kept_steps(plan, result.original.checkpoint, result.steps),
    )
    store.write_record(f"{ENDED}{key}", note.model_dump(mode="json"))


def kept_steps(plan: Plan, original: str, known: Sequence[StepResult]) -> list[ScheduledStep]:
    """The steps that led to the result of a run, each as the stages make it; a jump counts as all its steps."""
    kept: list[ScheduledStep] = []
    for number, step in enumerate(known):
        planned = next_step(plan, original, known[:number])
        if isinstance(planned, Planned) and takes_over(step.decision):
            one = {"stage": planned.stage.name, "tower": planned.tower or "largest", "removed": planned.removed}
            kept += planned.jump or [ScheduledStep.model_validate(one)]
    return kept


def shape_of(anatomy: Anatomy) -> str:
    """A hash of what cuts depend on: the family, the shapes of all tensors, and the widths and units of all axes."""
    axes = {
        f"{name}.{axis}": [body.width, body.unit]
        for name, tower in anatomy.towers.items()
        for axis, body in tower.axes.items()
    }
    shapes = {name: list(shape) for name, shape in anatomy.shapes.items()}
    return digest_of({"family": anatomy.family, "shapes": shapes, "axes": axes})


def _previous(plan: Plan, store: Store, anatomy: Anatomy) -> Schedule | None:
    """The schedule of the run that ended last among those that fit a plan and kept a step."""
    shape = shape_of(anatomy)
    entries = store.objects.entries(f"{RECORDS.folder}/{ENDED}")
    for entry in sorted(entries, key=lambda one: (-one.modified, one.name)):
        key = stem(entry.name).removeprefix(ENDED)
        try:
            note = _ended(store, key) if DIGEST.fullmatch(key) else None
        except UserError:  # damaged, or of another version: a run that nobody has named is passed over
            continue
        if note and note.steps and note.shape == shape and not _different(plan, note, _SAME_SEARCH):
            return _schedule(store, key, note)
    return None


def _named(plan: Plan, address: str, anatomy: Anatomy) -> Schedule:
    """The schedule of the run at an address; UserError if there is none that has ended and fits."""
    store, begins = _located(address)
    key = _one_key(store, begins)
    note, who = _ended(store, key), f"start_from: run {key[:12]} of {store.root_address}"
    if note is None:
        raise UserError(
            f"{who} has not ended, or the store has lost the record of its end; resume the run, which writes it, or "
            "leave start_from out"
        )
    if note.shape != shape_of(anatomy):
        other = f" ({note.family}, this one is {anatomy.family})" if note.family != anatomy.family else ""
        raise UserError(f"{who} compressed a model of another shape{other}; leave start_from out")
    if different := _different(plan, note, _SAME_CUTS):
        raise UserError(f"{who} has other {different} than this plan; make them the same, or leave start_from out")
    if not note.steps:
        raise UserError(f"{who} kept no step; leave start_from out")
    return _schedule(store, key, note)


def _schedule(store: Store, key: str, note: EndedNote) -> Schedule:
    """The schedule of an ended run, with its ends if its store still holds both."""
    ends = RunEnds(original=note.teacher, result=note.result)
    held = store.holds(ends.original) and store.holds(ends.result)
    return Schedule(run=key, steps=note.steps, ends=ends if held else None)


def _bring(schedule: Schedule, source: Store, target: Store) -> None:
    """Copy the ends of an earlier run into the store of the run that starts from it."""
    for digest in (schedule.ends.original, schedule.ends.result) if schedule.ends else ():
        if not target.holds(digest):
            target.add_checkpoint(source.checkpoint(digest))


def _located(address: str) -> tuple[Store, str]:
    """The store of a run, and its key or how that begins. UserError if the address names no run."""
    path = Path(address)
    if "://" not in address and (path.name == "result.json" or (path / "plan.json").is_file()):
        return _in_folder(path.parent if path.name == "result.json" else path)
    found = _RUN.fullmatch(address)
    if not found:
        raise UserError(f"start_from: {address} is no run: give previous, STORE/runs/KEY, or the folder of a run")
    return existing_store(found["root"]), found["key"]


def _in_folder(folder: Path) -> tuple[Store, str]:
    """The store and the key of the run in a folder."""
    if not (folder / "result.json").is_file():
        raise UserError(f"start_from: the run in {folder} has not ended: it has no result.json; resume it first")
    try:
        key = Result.model_validate_json((folder / "result.json").read_text("utf-8")).run_key
        plan = Plan.model_validate_json((folder / "plan.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"start_from: {folder} holds no run that can be read: {str(error).splitlines()[0]}") from None
    own = str(folder / "store")
    return existing_store(own if is_store(own) or plan.store is None else plan.store), key


def _one_key(store: Store, begins: str) -> str:
    """The key of the run that begins so; UserError if there is none, or if there are several."""
    prefixes = (f"{RECORDS.folder}/{ENDED}", RUNS.prefix)
    keys = {key for prefix in prefixes for key in _keys(store, prefix, begins)}
    if len(keys) != 1:
        many = f"holds {len(keys)} runs whose keys begin" if keys else "holds no run whose key begins"
        raise UserError(f"start_from: {store.root_address} {many} with {begins}")
    return keys.pop()


def _keys(store: Store, prefix: str, begins: str) -> Iterator[str]:
    for entry in store.objects.entries(f"{prefix}{begins}"):
        if DIGEST.fullmatch(key := stem(entry.name.removeprefix(prefix))):  # others are not of lmmpress
            yield key


def _ended(store: Store, key: str) -> EndedNote | None:
    """The note of a run that has ended; None if the store has none, UnreadableError if it is damaged."""
    found = store.read_record(f"{ENDED}{key}")
    return EndedNote.model_validate(found) if found else None


def _different(plan: Plan, note: EndedNote, settings: tuple[str, ...]) -> str:
    """Which of these settings differ from those of the plan of an ended run, for a person; empty if none does."""
    try:
        ours, theirs = plan.key_settings(), Plan.model_validate_json(note.plan).key_settings()
    except ValidationError:
        return "settings, which this lmmpress cannot read,"
    return " and ".join(name for name in settings if ours[name] != theirs[name])


def _with_schedule(plan: Plan, schedule: Schedule) -> Plan:
    try:
        return Plan.model_validate(plan.model_dump() | {"schedule": schedule.model_dump()})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"start_from: run {schedule.run[:12]}: {fault}") from None
