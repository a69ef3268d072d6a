"""Prints what is predicted that students of the derived AntGMM take of a card: nothing here runs on one.

    python bench/card.py [--card h100-80gb] [--blocks 44 15 9] [--rows 8 32]

Of students with so many blocks that learn from so many rows at once: the GB (10^9 bytes) that each economy takes, each
with those before it, as `auto` reckons them, from shadows of a student as it is and with recomputation; and what `auto`
chooses on that card. `bench/gpu.py` compares such a prediction with a card.
"""

import argparse
import sys
from typing import Any

from common import show
from gpu import Setting

from lmmpress.pruning.economy import choose
from lmmpress.pruning.hardware import hardware_of
from lmmpress.pruning.memory import training_bytes
from lmmpress.settings.economy import Economy

WAYS = (
    Economy(),
    Economy(recompute=True),
    Economy(recompute=True, optimizer="adamw8bit"),
    Economy(recompute=True, optimizer="adamw8bit", weights="bfloat16"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--card", default="h100-80gb")
    parser.add_argument("--blocks", type=int, nargs="+", default=[44, 15, 9])
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--tiny", action="store_true", help="small shapes")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"card": arguments.card}
    for blocks in arguments.blocks:
        for rows in arguments.rows:
            name = f"{blocks} blocks, {rows} rows"
            found[name] = predicted(Setting(arguments.tiny), arguments.card, blocks, rows)
            print(name, found[name], file=sys.stderr)
    show(found)


def predicted(setting: Setting, card: str, blocks: int, rows: int) -> dict[str, Any]:
    """GB of each economy, and what `auto` chooses, for a student with so many blocks and so many rows at once."""
    setting.portion = rows
    foresight = setting.foresight(blocks, hardware_of(card, 1))
    trainings, budget = foresight._trainings(1), foresight.hardware.memory - foresight.floor
    training = trainings(rows)
    return {
        "parameters": training.held,
        "trained": training.trained,
        "gb": {f"with {way}": (foresight.floor + training_bytes(training, way)) / 1e9 for way in WAYS},
        "auto": str(choose(trainings, foresight.plan.distillation, budget, rows)),
    }


if __name__ == "__main__":
    main()
