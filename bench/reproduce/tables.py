"""The counterparts of the paper's tables 2 to 4, as Markdown. The paper's number stands beside each."""

from collections.abc import Callable, Sequence
from functools import partial

from reproduce import paper
from reproduce.catalogue import ends, epochs_in_time, gradual, losses, one_shot, one_shot_in_time, shot_epochs
from reproduce.experiments import Wanted
from reproduce.orders import difference, order_sentence
from reproduce.outcome import EndNote, Outcome
from reproduce.spread import MISSING, Numbers, shown
from reproduce.view import View, markdown, millions

LEVELS = {"block": "blocks", "ffn": "FFN", "attention": "attention", "io": "input/output", "all": "all stages"}
TASKS = {
    "background_color": "Color",
    "manifestation": "Manifestations",
    "content": "Content",
    "logo": "Logo",
    "style": "Style",
}
"""The paper's names of the sample's tasks."""
REASONS = {
    "table 2": "Size is not what orders these models: each was distilled more often than the one before it, and in "
    "the paper too the last one is better than the first one that was cut.",
    "table 2, by size": "Here they are ordered by size: each stage costs more than distilling wins back, so that no "
    "stage makes good what an earlier one has lost.",
    "table 3 ways": "The paper does not say for how long its one-shot models were distilled. Here both have as much of "
    "it, and one-shot spends all on the final shape.",
    "table 3 levels": "An eighth of a small model's width is few dimensions, and an eighth of its blocks one or two, "
    "so what a level can spare here need not be what it can spare in AntGMM.",
    "table 4": "Where the teacher is nearly always right, its own choice, the label and the hinge mostly ask for the "
    "same token, so the three losses have little to differ in.",
}
"""What may explain another order than the paper's: written by hand, and printed only where the order is another."""


def table_2(view: View) -> str:
    """Size, speed and accuracy after each stage, on the test split."""
    make = partial(ends, view.form)

    def of(name: str, read: Callable[[EndNote], float | None]) -> Numbers:
        return view.numbers(make, lambda outcome: read(outcome.ends[name]) if name in outcome.ends else None)

    accuracy = {name: of(name, lambda one: one.accuracy) for name in paper.TABLE_2}
    heads = ["model", "size, paper", "here", "times the samples/s, paper", "here", "accuracy, paper", "here"]
    body = [
        [
            name,
            f"{size} B",
            f"{text} M" if (text := millions(of(name, lambda one: one.language))) != MISSING else text,
            f"{speed / paper.TABLE_2['original'][1]:.1f}",
            shown(of(name, lambda one: one.faster), 1),
            f"{printed:.3f}",
            shown(accuracy[name]),
        ]
        for name, (size, speed, _, printed) in paper.TABLE_2.items()
    ]
    rows = next((one.rows for one in view.outcomes(make) if one), 0)
    printed = {name: row[3] for name, row in paper.TABLE_2.items()}
    means = [numbers.mean for numbers in accuracy.values() if numbers.known]
    by_size = means == sorted(means, reverse=True)
    caption = (
        "What each stage leaves. This table alone reads the **test split**, once, when the run has ended. Sizes are "
        "those of the language tower; samples/s are so many times the original's, which takes turns, with one thread."
    )
    return "\n\n".join(
        [
            caption,
            markdown(heads, body),
            order_sentence(printed, accuracy, rows, REASONS["table 2, by size" if by_size else "table 2"]),
            *_by_task(of, sorted({task for one in view.outcomes(make) if one for task in _tasks_of(one)})),
        ]
    )


def _by_task(of: Callable[[str, Callable[[EndNote], float | None]], Numbers], tasks: Sequence[str]) -> tuple[str, str]:
    """Accuracy by task with what stands above it: beside the paper's where the preset has its tasks, else alone."""
    own = bool(tasks) and set(tasks) != set(TASKS)
    above = "Accuracy by task; they are not the paper's:" if own else "Accuracy by task, the paper's before the slash:"
    rows = []
    for name, (_, _, printed, _) in paper.TABLE_2.items():
        found = [shown(of(name, partial(_of_task, task=task))) for task in (tasks if own else TASKS)]
        rows.append([name, *(found if own else (f"{a:.3f} / {b}" for a, b in zip(printed, found, strict=True)))])
    return above, markdown(["model", *(tasks if own else TASKS.values())], rows)


def _tasks_of(outcome: Outcome) -> set[str]:
    return {task for one in outcome.ends.values() for task in one.by_task}


def table_3(view: View) -> str:
    """Each level alone and all of them, gradual against one-shot, at equal distillation and at equal time."""
    ways: dict[str, Callable[[str], Callable[[int], Wanted]]] = {
        "gradual": lambda level: partial(gradual, view.form, level=level),
        "one-shot, as much distillation": lambda level: partial(one_shot, view.form, level=level),
        "one-shot, as much time": lambda level: partial(one_shot_in_time, view.form, level=level),
    }
    found = {level: {way: view.accuracy(of(level)) for way, of in ways.items()} for level in paper.TABLE_3}
    heads = ["level", "paper: size", "gradual", "one-shot", "here: size", "samples/s, times the original", *ways]
    body, costs = [], []
    for level, (size, _, by_steps, at_once) in paper.TABLE_3.items():
        steps, shot = ways["gradual"](level), ways["one-shot, as much distillation"](level)
        sizes = view.numbers(steps, lambda one: one.size)
        speeds = view.numbers(steps, lambda one: one.faster)
        cells = [millions(sizes) + (" M" if sizes.known else ""), shown(speeds, 1)]
        cells += [shown(numbers) for numbers in found[level].values()]
        body.append([LEVELS[level], f"{size} B", f"{by_steps:.3f}", f"{at_once:.3f}", *cells])
        costs.append([LEVELS[level], *_budget(view, level, steps, shot)])
    sentences = [
        f"- {LEVELS[level]}: "
        + order_sentence(
            {"gradual": by_steps, way: at_once},
            {"gradual": found[level]["gradual"], way: found[level][way]},
            view.rows,
            REASONS["table 3 ways"],
        )
        for level, (_, _, by_steps, at_once) in paper.TABLE_3.items()
        for way in list(ways)[1:]
    ]
    printed = {LEVELS[level]: row[2] for level, row in paper.TABLE_3.items()}
    levels = order_sentence(
        printed,
        {LEVELS[level]: found[level]["gradual"] for level in paper.TABLE_3},
        view.rows,
        REASONS["table 3 levels"],
    )
    last = view.numbers(
        partial(ends, view.form),
        lambda one: one.ends["after input/output"].accuracy if "after input/output" in one.ends else None,
    )
    caption = (
        "Each level alone, cut to about an eighth of it in four steps or at once, and all stages of the preset. "
        "Accuracies are those of the **gate split**, which these rows are compared on; every step is kept, so that "
        "models in a row have one size."
    )
    test = f"All stages, gradual, on the **test split** (the last row of Table 2): {shown(last)}; in the paper 0.923."
    budget = "Epochs and processor time, in seconds, of the three ways, without measuring:"
    return "\n\n".join(
        [
            caption,
            markdown(heads, body),
            test,
            "Gradual against one-shot:",
            "\n".join(sentences),
            f"The levels by their gradual row: {levels}",
            budget,
            markdown(["level", *(f"{way}: {what}" for way in ways for what in ("epochs", "seconds"))], costs),
        ]
    )


def _budget(view: View, level: str, steps: Callable[[int], Wanted], shot: Callable[[int], Wanted]) -> list[str]:
    """The epochs and the processor time of each way."""
    epochs = shot_epochs(view.form, level)
    pairs = zip(view.outcomes(steps), view.outcomes(shot), strict=True)
    equal = Numbers(tuple(epochs_in_time(a, b, epochs) if a and b else None for a, b in pairs))
    timed = view.numbers(partial(one_shot_in_time, view.form, level=level), _work)
    return [
        str(epochs),
        shown(view.numbers(steps, _work), 0),
        str(epochs),
        shown(view.numbers(shot, _work), 0),
        shown(equal, 0),
        shown(timed, 0),
    ]


def _of_task(one: EndNote, task: str) -> float | None:
    return one.by_task.get(task)


def _work(outcome: Outcome) -> float:
    return outcome.work


def table_4(view: View) -> str:
    """The losses."""
    variants = losses(view.form)
    found = {name: view.accuracy(make) for name, make in variants.items()}
    body = [
        [
            name,
            f"{paper.TABLE_4[name]:.3f}" if name in paper.TABLE_4 else "",
            shown(numbers),
            shown(view.numbers(variants[name], lambda one: one.lowest)),
            "" if name == "Eq. 5" else shown(numbers.minus(found["Eq. 5"]), sign=True),
            "" if name == "Eq. 5" else difference(numbers, found["Eq. 5"], view.rows),
        ]
        for name, numbers in found.items()
    ]
    caption = (
        "The losses of distillation, on the **gate split**, after all stages of the preset, every step kept. Hard "
        "labels are in addition to Eq. 5, as in the paper."
    )
    heads = ["loss", "paper", "here", "lowest step", "against Eq. 5", "difference"]
    return "\n\n".join(
        [caption, markdown(heads, body), order_sentence(paper.TABLE_4, found, view.rows, REASONS["table 4"])]
    )
