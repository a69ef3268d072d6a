"""All experiments, by what they are for. Runs of the same content are one run, whatever table asks for them.

To add one: a line in a function here, or in `ABLATIONS`; of a preset of your own, `--presets`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from reproduce.experiments import Experiment, Later, Wanted
from reproduce.form import AT_ONCE, AXES, GRADUAL, KEPT, Form
from reproduce.outcome import Outcome

Of = Callable[[int], Wanted]
"""An experiment for each seed."""
SHARES_OF_ROWS = (0.25, 0.5, 0.75, 1.0)
"""Of the distill split; of the paper's 12,000 rows these are 3,000 to 12,000."""
REFIT_ROWS = 256


def kept(form: Form, seed: int, *settings: str) -> Experiment:
    """The preset's run with other settings, every step kept."""
    return Experiment(form.preset, seed, (*form.settings, KEPT, *settings), small=form.quick)


def base(form: Form, seed: int) -> Experiment:
    """The preset's own run, every step kept; most tables have it in a row."""
    return kept(form, seed, *_with_speed(form))


def fill(form: Form) -> Experiment:
    """What all runs share, made before the first of them."""
    return Experiment(form.preset, 0, form.settings, "script", form.quick, script="reproduce.fill")


def ends(form: Form, seed: int) -> Wanted:
    """The test split and the speed of what each stage of the base leaves, and of the original (Table 2)."""

    def make(outcomes: Sequence[Outcome]) -> Experiment:
        (run,) = outcomes
        last = {step.stage: step.checkpoint for step in run.kept if step.checkpoint}
        found = [("original", run.original)]
        found += [(name, last[stage]) for stage, name in ENDS.items() if stage in last]
        return Experiment(form.preset, seed, kind="compared", small=form.quick, checkpoints=tuple(found))

    return Later((base(form, seed),), make)


ENDS = {"block": "after blocks", "attention": "after FFN and attention", "io": "after input/output"}
"""The stages after which Table 2 measures, and the name of each row."""


def gradual(form: Form, seed: int, level: str) -> Experiment:
    """A level alone, in steps (Table 3); `all` are all stages of the preset."""
    if level == "all":
        return base(form, seed)
    return kept(form, seed, f"stages={{{level}: {GRADUAL}}}", *_with_speed(form))


def one_shot(form: Form, seed: int, level: str, epochs: int | None = None) -> Experiment:
    """The same cut at once, distilled for as many epochs as all steps of `gradual` together, or for others. All levels
    at once are cut one after the other, and distilled after the last."""
    epochs = epochs or shot_epochs(form, level)
    if level == "all":
        stages = json.dumps({axis: amounts | {"step": amounts["max"]} for axis, amounts in form.stages.items()})
        return kept(form, seed, f"stages={stages}", "distillation.epochs=0", f"distillation.last_epochs={epochs}")
    return kept(form, seed, f"stages={{{level}: {AT_ONCE}}}", f"distillation.epochs={epochs}")


def shot_epochs(form: Form, level: str) -> int:
    """How many epochs all steps of a level's gradual pruning have together."""
    return form.epochs * (form.planned if level == "all" else form.planned_alone[level])


def one_shot_in_time(form: Form, seed: int, level: str) -> Wanted:
    """The same cut at once, distilled for as long as the gradual run took processor time."""

    def make(outcomes: Sequence[Outcome]) -> Experiment:
        steps, shot = outcomes
        return one_shot(form, seed, level, epochs_in_time(steps, shot, shot_epochs(form, level)))

    return Later((gradual(form, seed, level), one_shot(form, seed, level)), make)


def epochs_in_time(steps: Outcome, shot: Outcome, epochs: int) -> int:
    """How many epochs of the one-shot run take the processor time of the gradual one; `shot` had `epochs`."""
    distilling = sum(step.processor.get("distill", 0.0) for step in shot.steps)
    left = steps.work - (shot.work - distilling)
    return max(1, round(left / distilling * epochs)) if distilling else epochs


def losses(form: Form) -> dict[str, Of]:
    """Table 4, the margin, and the other direction of the divergence."""
    other = {"forward": "reverse", "reverse": "forward"}[form.kl]
    found: dict[str, tuple[str, ...]] = {
        "no pairwise loss": ("distillation.pairwise=none",),
        "hard labels": ("distillation.hard_labels=1.0",),
        "margin": ("distillation.pairwise=margin",),
    }
    if not form.quick:
        found[f"Eq. 5, {other} divergence"] = (f"distillation.kl={other}",)
    return _beside_base(form, "Eq. 5", found)


def rows(form: Form) -> dict[int, Of]:
    """Fig. 7: the number of distillation rows. The base is one of them, if its number is."""
    shares = [share for share in SHARES_OF_ROWS if share != 0.5 or not form.quick]
    numbers = [round(form.all_rows * share) for share in shares]
    return {
        number: partial(base, form) if number == form.rows else partial(_kept, form, (f"distillation.rows={number}",))
        for number in numbers
    }


@dataclass(frozen=True)
class Ablation:
    """A question that the paper leaves open: its variants by name, the base among them, each for a seed."""

    title: str
    question: str
    variants: Callable[[Form], dict[str, Of]]


def _scores(form: Form) -> dict[str, Of]:
    found = {
        ("taylor", where): f"Eq. 1, absolute value by {where}"
        for where in ("dataset",) + (() if form.quick else ("batch", "sample"))
    } | {
        ("magnitude", ""): "magnitude",
        ("random", ""): "random",
    }
    own = (form.criterion, form.accumulation if form.criterion == "taylor" else "")
    others: dict[str, tuple[str, ...]] = {}
    for (criterion, where), name in found.items():
        if (criterion, where) != own:
            asked = f"importance.criterion={criterion}"
            others[name] = (asked, f"importance.accumulation={where}") if where else (asked,)
    return _beside_base(form, f"{found.get(own, form.criterion)}, as in the preset", others)


def _scored_once(form: Form) -> dict[str, Of]:
    def once(seed: int) -> Wanted:
        return Experiment(form.preset, seed, (*form.settings, KEPT), "script", form.quick, script="reproduce.once")

    found: dict[str, Of] = {"scores at every step": partial(base, form), "scores once a stage": once}
    return found


def _orders(form: Form) -> dict[str, Of]:
    orders = {"from the last to the first": tuple(reversed(form.stages))}
    if not form.quick:
        orders["blocks last"] = (*(axis for axis in form.stages if axis != "block"), "block")
    listed = {
        name: (f"stages={json.dumps([{'axis': axis} | form.stages[axis] for axis in order])}",)
        for name, order in orders.items()
    }
    return _beside_base(form, "as in the paper", listed)


def _refitted(form: Form) -> dict[str, Of]:
    repaired = {f"repaired on {REFIT_ROWS} rows": (f"distillation.refit_rows={REFIT_ROWS}",)}
    return _beside_base(form, "not repaired", repaired)


def _with_states(form: Form) -> dict[str, Of]:
    weights = {f"weight {weight}": (f"distillation.states={weight}",) for weight in (0.3, 1, 3)}
    return _beside_base(form, "answers alone", weights)


def _towers(form: Form) -> dict[str, Of]:
    """The preset's stages, then the FFN of the image tower. Nothing of images can be cached then: it takes hours."""
    if form.quick:
        return {}
    stages = [{"axis": axis, "tower": "language"} | amounts for axis, amounts in form.stages.items()]
    stages.append({"axis": "ffn", "tower": "vision", "step": "25%", "max": "50%"})
    both = {"then half of the vision tower's FFN": (f"stages={json.dumps(stages)}",)}
    return _beside_base(form, "language tower alone", both)


ABLATIONS = (
    Ablation("Scores", "Where Eq. 1 takes the absolute value, beside magnitude and random cuts.", _scores),
    Ablation("Scores once or at every step", "Whether a stage scores anew after each distillation.", _scored_once),
    Ablation("Order of the stages", "The paper cuts blocks first and the input/output width last.", _orders),
    Ablation(
        "Repair", "Least squares before each distillation ([repair](paper.md#repair-before-distilling)).", _refitted
    ),
    Ablation(
        "Hidden states",
        "The distance between [hidden states](paper.md#hidden-states) before the heads, beside Eq. 5.",
        _with_states,
    ),
    Ablation("Image tower", "The paper cuts the language tower alone.", _towers),
)


def gates(form: Form) -> dict[tuple[str, str], Of]:
    """What alpha is compared with, and what becomes of the step that breaks it, by these two settings."""
    found: dict[tuple[str, str], Of] = {}
    for reference in ("stage",) if form.quick else ("stage", "original"):
        for violation in ("rollback", "keep"):
            guard = f"{{alpha: {gate_alpha(form):g}, reference: {reference}, on_violation: {violation}}}"
            found[reference, violation] = partial(_kept, form, (f"tolerance={guard}",))
    return found


def gate_alpha(form: Form) -> float:
    """An alpha that some step breaks and others do not: a quarter of the preset's, whose steps all stay below it. With
    the few rows of the quick form steps lose more, so there it is five times as much."""
    return round(form.alpha * (5 if form.quick else 0.25), 6)


def everything(form: Form) -> Iterator[Wanted]:
    """All experiments of a form, those that others build on first; some come more than once."""
    for seed in form.seeds:
        yield base(form, seed)
    for seed in form.seeds:
        yield ends(form, seed)
        for variants in (losses(form), *(each.variants(form) for each in ABLATIONS)):
            yield from (make(seed) for make in variants.values())
        yield from (make(seed) for make in (*rows(form).values(), *gates(form).values()))
        for level in (*AXES, "all"):
            yield gradual(form, seed, level)
            yield one_shot(form, seed, level)
            yield one_shot_in_time(form, seed, level)


def _with_speed(form: Form) -> tuple[str, str]:
    return "evaluation.speed=true", f"evaluation.seconds={2 if form.quick else 20}"


def _kept(form: Form, settings: tuple[str, ...], seed: int) -> Experiment:
    return kept(form, seed, *settings)


def _beside_base(form: Form, name: str, others: Mapping[str, tuple[str, ...]]) -> dict[str, Of]:
    """The base under a name, and variants of it by their settings."""
    found: dict[str, Of] = {name: partial(base, form)}
    return found | {other: partial(_kept, form, settings) for other, settings in others.items()}
