"""Ablations that the paper lacks, as tables: every variant beside the preset as it is."""

from reproduce.catalogue import ABLATIONS, Ablation, gate_alpha, gates
from reproduce.orders import difference
from reproduce.spread import MISSING, shown
from reproduce.view import View, markdown, millions


def ablation(view: View, asked: Ablation) -> str:
    """A question, and what each variant of it led to."""
    variants = asked.variants(view.form)
    if not variants:
        return f"{asked.question} The quick form leaves this out."
    base = view.accuracy(view.base)
    body = []
    for number, (name, make) in enumerate(variants.items()):
        numbers = view.accuracy(make)
        compared = (
            ["", ""] if number == 0 else [shown(numbers.minus(base), sign=True), difference(numbers, base, view.rows)]
        )
        lowest = shown(view.numbers(make, lambda one: one.lowest))
        sizes = millions(view.numbers(make, lambda one: one.size_of_all))
        body.append([name, shown(numbers), lowest, sizes, *compared])
    heads = ["variant", "accuracy", "lowest step", "size of all, M", "against the first", "difference"]
    return f"{asked.question} Measured on the **gate split**.\n\n{markdown(heads, body)}"


def gate_table(view: View) -> str:
    """What alpha is compared with, and what becomes of a step that breaks it."""
    body = []
    for (reference, violation), make in gates(view.form).items():
        kept = view.numbers(make, lambda one: len(one.kept))
        made = view.numbers(make, lambda one: len(one.steps))
        lost = view.numbers(make, lambda one: None if one.accuracy is None else one.start - one.accuracy)
        sizes = millions(view.numbers(make, lambda one: one.size))
        body.append(
            [
                reference,
                violation,
                f"{shown(kept, 1)} of {shown(made, 1)}" if kept.known else MISSING,
                sizes,
                shown(lost),
            ]
        )
    heads = ["alpha against", "a step that breaks it", "steps kept", "size, M", "lost against the original"]
    caption = (
        f"Alpha is {gate_alpha(view.form):g} here, so that some step breaks it. The paper measures against the stage, "
        "and keeps the step. Measured on the **gate split**."
    )
    return f"{caption}\n\n{markdown(heads, body)}"


def ablation_sections(view: View) -> list[tuple[str, str]]:
    """Title and text of each."""
    return [("Alpha", gate_table(view)), *((each.title, ablation(view, each)) for each in ABLATIONS)]
