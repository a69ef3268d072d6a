"""The rows of bench/compare_peers.py as docs/peers.md has them: a table for each task, and below it what has no
figures, with the reason."""

from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

HEADS = ("way", "parameters", "cut", "distilled", "loss", "cutting, s", "cutting, MB", "distilling, s", "loads")


def tables(result: dict[str, Any]) -> str:
    """Markdown of all tasks, in the order of the rows."""
    rows = result["tasks"]
    return "\n\n".join(_table(task, [one for one in rows if one["task"] == task]) for task in _names(rows, "task"))


def _table(task: str, rows: list[dict[str, Any]]) -> str:
    done, reasons = [], []
    for peer in _names(rows, "peer"):
        own = [one for one in rows if one["peer"] == peer]
        figures = [one for one in own if "after" in one]
        if figures:
            done.append(f"| {' | '.join(_cells(peer, figures))} |")
        else:
            reasons.append(f"- {peer}: {own[0]['why']}")
    lines = [f"| {' | '.join(HEADS)} |", f"| {' | '.join('---' for _ in HEADS)} |", *done]
    return "\n".join([f"### {task}", "", *lines, *(["", "Without figures:", "", *reasons] if reasons else [])])


def _cells(peer: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    yield peer
    yield f"{rows[0]['parameters']:,}"
    yield _spread((one["before"]["accuracy"] for one in rows), ".3f")
    yield _spread((one["after"]["accuracy"] for one in rows), ".3f")
    yield _spread((one["after"]["loss"] for one in rows), ".3f")
    yield _spread((one["cut_seconds"] for one in rows), ".1f")
    yield _spread((one["cut_megabytes"] for one in rows), ".0f")
    yield _spread((one["distil_seconds"] for one in rows), ".1f")
    yield "yes" if all(one["loads"] for one in rows) else "no"


def _spread(values: Iterable[float], form: str) -> str:
    """The number; of several seeds the median with the smallest and the largest."""
    found = sorted(values)
    middle = format(median(found), form)
    return middle if len(found) == 1 else f"{middle} ({found[0]:{form}} to {found[-1]:{form}})"


def _names(rows: list[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(one[key] for one in rows))
