"""The counterparts of the paper's figures 6, 7, 10 and 11: a sentence or a small table beside each plot."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from reproduce import paper
from reproduce.catalogue import rows
from reproduce.orders import order_sentence
from reproduce.outcome import Outcome, StepNote
from reproduce.spread import MISSING, Numbers, shown
from reproduce.view import View, markdown, millions

REASONS = {
    "figure 6": "How much a cut hurts before distilling depends on how much one step removes, and the preset's steps "
    "are other shares of the widths than the paper's.",
    "figure 7": "",
    "figure 10": "How much a stage removes is set by the preset's maxima.",
}


def figure_6(view: View) -> str:
    """Accuracy before and after every distillation."""
    steps = _steps(view)
    if not steps:
        return f"The steps are {MISSING}."
    body = [
        [str(number), one[0].stage, shown(_each(view, number, "before")), shown(_each(view, number, "after"))]
        for number, one in enumerate(steps, start=1)
    ]
    stages = list(dict.fromkeys(one[0].stage for one in steps))
    falls = {stage: view.numbers(view.base, partial(fall_of, stage=stage)) for stage in stages}
    hurt, others = paper.FIGURE_6_HURTS, [stage for stage in stages if stage not in paper.FIGURE_6_HURTS]
    said = ", ".join(f"{stage} {shown(numbers)}" for stage, numbers in falls.items())
    whole = all(numbers.whole for numbers in falls.values()) and set(hurt) <= set(stages) and bool(others)
    if not whole:
        verdict = f"The orders are not compared: a stage is {MISSING}."
    elif min(falls[stage].mean for stage in hurt) > max(falls[stage].mean for stage in others):
        verdict = "Same order as in the paper: a cut of blocks or of attention hurts most before distilling."
    else:
        verdict = (
            "Other order than in the paper, where a cut of blocks or of attention hurts most before distilling. "
            + REASONS["figure 6"]
        )
    caption = "Accuracy on the **gate split** before and after every distillation of the preset's run."
    mean = f"The accuracy that a cut costs before distilling, mean over the steps of a stage: {said}. {verdict}"
    return "\n\n".join([caption, markdown(["step", "stage", "before", "after"], body), mean])


def fall_of(run: Outcome, stage: str) -> float | None:
    """What the cuts of a stage cost before distilling, on average, from the step before each."""
    falls, previous = [], run.start
    for step in run.steps:
        if step.stage == stage and step.before is not None:
            falls.append(previous - step.before)
        previous = step.after if step.after is not None else previous
    return sum(falls) / len(falls) if falls else None


def figure_7(view: View) -> str:
    """The number of distillation rows."""
    found = {number: view.accuracy(make) for number, make in rows(view.form).items()}
    body = [[f"{number:,}", shown(numbers)] for number, numbers in found.items()]
    caption = (
        "Accuracy on the **gate split** after all stages, by the number of rows that every step is distilled on, each "
        "for as many epochs. The paper prints no numbers: more rows are better, 3,000 are already good, and "
        "12,000 come close to the original."
    )
    rising = {f"{number:,} rows": float(number) for number in found}
    here = {f"{number:,} rows": numbers for number, numbers in found.items()}
    sentence = order_sentence(rising, here, view.rows, REASONS["figure 7"]).strip()
    start = view.numbers(view.base, lambda run: run.start)
    return "\n\n".join([caption, markdown(["rows", "accuracy"], body), f"The original has {shown(start)}. {sentence}"])


def figure_10(view: View) -> str:
    """Size against step."""
    caption = "The parameters of the language tower after every step of the preset's run."
    steps = _steps(view)
    if not steps:
        return f"The steps are {MISSING}."
    removed = removed_by_stage(view.bases[0])
    body = [[stage, f"{100 * share:.0f} %"] for stage, share in removed.items()]
    numbers = {stage: Numbers((share,)) for stage, share in removed.items()}
    printed = dict(zip(paper.FIGURE_10_STAGES, (3.0, 2.0, 1.0), strict=True))
    if set(removed) != set(printed):
        sentence = f"The orders are not compared: a stage is {MISSING}."
    else:
        sentence = order_sentence(printed, numbers, None, REASONS["figure 10"])
    said = "The paper removes most with blocks, then inside them, and least of the input/output width."
    return "\n\n".join([caption, markdown(["stage", "share of all that is removed"], body), f"{said} {sentence}"])


def removed_by_stage(run: Outcome) -> dict[str, float]:
    """The share that each of the paper's phases has of all parameters that a run removes."""
    before, removed = run.language, dict.fromkeys(paper.FIGURE_10_STAGES, 0.0)
    for step in run.kept:
        phase = "ffn and attention" if step.stage in ("ffn", "attention") else step.stage
        if phase in removed:
            removed[phase] += before - step.language
        before = step.language
    total = run.language - run.size
    return {phase: count / total for phase, count in removed.items() if count}


def figure_11(view: View) -> str:
    """Size against accuracy."""
    caption = "Accuracy on the **gate split** against the size of the language tower, of the preset's run."
    steps = _steps(view)
    if not steps:
        return f"The steps are {MISSING}."
    body = [
        [str(number), one[0].stage, millions(_each(view, number, "language")), shown(_each(view, number, "after"))]
        for number, one in enumerate(steps, start=1)
    ]
    rose, pairs = rises_in_stages([_mean(view, number) for number in range(1, len(steps) + 1)])
    said = (
        f"Of {pairs} steps that follow another of the same stage, {rose} left a model that is smaller and better. The "
        "paper sees fewer right answers with a smaller model inside a stage in general, and exceptions."
    )
    return "\n\n".join([caption, markdown(["step", "stage", "size, M", "accuracy"], body), said])


def rises_in_stages(steps: Sequence[tuple[str, float | None]]) -> tuple[int, int]:
    """How many steps are better than the one before in their stage, and how many there are to compare."""
    pairs = [
        (later, before)
        for (stage, before), (same, later) in pairwise(steps)
        if stage == same and before is not None and later is not None
    ]
    return sum(later > before for later, before in pairs), len(pairs)


def _steps(view: View) -> list[list[StepNote]]:
    """The steps of the known base runs: those of all seeds for each number."""
    return [list(one) for one in zip(*(run.steps for run in view.bases), strict=False)]


def _each(view: View, number: int, field: str) -> Numbers:
    def read(run: Outcome) -> float | None:
        value: float | None = getattr(run.steps[number - 1], field) if len(run.steps) >= number else None
        return value

    return view.numbers(view.base, read)


def _mean(view: View, number: int) -> tuple[str, float | None]:
    numbers = _each(view, number, "after")
    return view.bases[0].steps[number - 1].stage, numbers.mean if numbers.known else None


FIGURES: dict[str, Callable[[View], str]] = {"6": figure_6, "7": figure_7, "10": figure_10, "11": figure_11}
