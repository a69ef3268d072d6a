"""The page of a comparison: two checkpoints on the same rows. It needs no other file and runs nothing.

Texts and pictures of the rows are untrusted: texts are escaped, pictures were drawn anew from their pixels.
"""

import os
from pathlib import Path
from typing import NamedTuple

from lmmpress.errors import UserError
from lmmpress.evaluation.comparison import WITH_PICTURE, Comparison
from lmmpress.host.whole_file import write_whole
from lmmpress.printing.numbers import in_bytes
from lmmpress.reporting import words
from lmmpress.reporting.rows import ShownRow, right_or_wrong, shown_picture
from lmmpress.reporting.templates import template

PAGE, DATA = "comparison.html", "comparison.json"
_KINDS = {"lost": "only A is right", "changed": "both are wrong", "gained": "only B is right"}


class Line(NamedTuple):
    """One line of the table of sizes and speed."""

    name: str
    a: str
    b: str
    change: str
    kind: str = "own"


def check_folder(folder: Path) -> None:
    """Raise UserError if a comparison cannot be written into this folder, which need not exist. Makes nothing."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a comparison is written into a folder, and this is a file")
    above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"{folder}: nothing can be written there, since {above} is no folder that this user may change")


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write comparison.html and comparison.json into a folder, each whole or not at all; the latter is written last."""
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / PAGE, render(comparison))
    write_whole(folder / DATA, comparison.model_dump_json(indent=1) + "\n")


def render(comparison: Comparison) -> str:
    """The page as HTML."""
    return template("comparison.html").render(
        found=comparison,
        title=_title(comparison),
        tasks=comparison.by_task | {"all": comparison.all},
        lines=_lines(comparison),
        rows=[
            ShownRow(row, shown_picture(row), _KINDS[row.kind], (right_or_wrong(row.a), right_or_wrong(row.b)))
            for row in comparison.differing[:WITH_PICTURE]
        ],
    )


def _title(found: Comparison) -> str:
    """What B is, relative to A, in one line."""
    a, b = found.a, found.b
    parts = ["as large" if a.parameters == b.parameters else _size(a.parameters, b.parameters)]
    if found.turns and b.speed:
        parts.append(f"{found.turns.gain(b.speed)[0]:.2f}× as fast")
    accuracy = f"{words.points(abs(found.all.drop))} points of accuracy {'lost' if found.all.drop >= 0 else 'gained'}"
    return f"B is {' and '.join(parts)}, {accuracy}"


def _size(before: float, after: float, less: str = "smaller", more: str = "larger") -> str:
    if before == after:
        return "the same"
    if not before or not after:
        return ""
    return f"{words.factor(before, after)} {less}" if before > after else f"{words.factor(after, before)} {more}"


def _lines(found: Comparison) -> list[Line]:
    """Sizes, memory, speed and energy. The change is B's relative to A."""
    a, b = found.a, found.b
    lines = [
        Line("Parameters", words.count(a.parameters), words.count(b.parameters), _size(a.parameters, b.parameters))
    ]
    for tower in dict.fromkeys([*a.parameters_by_tower, *b.parameters_by_tower]):
        sizes = (a.parameters_by_tower.get(tower, 0), b.parameters_by_tower.get(tower, 0))
        if any(sizes):
            lines.append(Line(tower, words.count(sizes[0]), words.count(sizes[1]), _size(*sizes), "part"))
    lines.append(Line("Weights on disk", in_bytes(a.bytes), in_bytes(b.bytes), _size(a.bytes, b.bytes)))
    for name, old, new in (("process", a.memory.process, b.memory.process), ("GPU", a.memory.gpu, b.memory.gpu)):
        if old is not None and new is not None:
            what = f"Peak memory of the {name}, batch {a.memory.batch_size}"
            lines.append(Line(what, in_bytes(old), in_bytes(new), _size(old, new)))
    if found.turns and a.speed and b.speed:
        latency, (gain, sure) = found.turns.latency, found.turns.gain(b.speed)
        lines.append(
            Line(
                f"Samples per second, batch {a.speed.batch_size}",
                f"{a.speed.samples_per_second:.1f}",
                f"{b.speed.samples_per_second:.1f}",
                f"{gain:.2f}× as fast ({sure})",
            )
        )
        for name in ("p50", "p95"):
            old, new = getattr(a.speed.latency_ms, name), getattr(b.speed.latency_ms, name)
            lines.append(
                Line(f"Latency {name}, batch 1", f"{old:.1f} ms", f"{new:.1f} ms", f"{old / new:.2f}× as fast")
            )
        spread = f"{latency.median:.2f}× as fast ({latency.low:.2f} to {latency.high:.2f} in {latency.count} rows)"
        lines.append(Line("Latency, row by row", "", "", spread))
        own = [
            words.MISSING if one.natural_tokens is None else f"{one.natural_tokens:.1f}" for one in (a.speed, b.speed)
        ]
        lines.append(Line("Tokens of its own answers", own[0], own[1], ""))
    if a.energy and b.energy:
        joules = a.energy.joules_per_sample, b.energy.joules_per_sample
        name = f"Energy of a sample, {a.energy.kind}"
        lines.append(Line(name, f"{joules[0]:.3g} J", f"{joules[1]:.3g} J", _size(*joules, "less", "more")))
    return lines
