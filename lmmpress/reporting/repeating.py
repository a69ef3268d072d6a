"""How a run is repeated, for its page: the commands, on the addresses of the run."""

import shlex
from typing import NamedTuple

from lmmpress.metrics.setting import ONLY_EXACT
from lmmpress.plan import Plan
from lmmpress.result import Result


class Command(NamedTuple):
    """A command line, and what it is for."""

    line: str
    what: str


def commands(result: Result, plan: Plan) -> list[Command]:
    """The commands that repeat a run, and measure its two models again."""
    before, after = result.original.address, result.compressed.address
    split = next((one.split for one in result.data if one.role == "test"), plan.splits.test)
    where = ["--data", plan.data, "--split", split]
    found = [
        Command("lmmpress run plan.yaml --out again", "the same run, with the plan below as plan.yaml"),
        Command(_line("lmmpress", "inspect", after), "towers, widths and all cuts of the compressed model"),
    ]
    if plan.metrics == ONLY_EXACT:
        found.append(Command(_line("lmmpress", "evaluate", after, *where), "accuracy and speed of it alone"))
    found.append(Command(_line("lmmpress", "compare", before, after, *where, "-o", "comparison"), "both, row by row"))
    return found


def _line(*words: str) -> str:
    return shlex.join(words)
