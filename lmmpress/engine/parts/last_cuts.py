"""The cuts of a checkpoint that it has not learned to live with yet."""

from typing import Any

from lmmpress.engine.materials import Materials
from lmmpress.lmm.compression_record import read_record


def last_cuts(materials: Materials, checkpoint: str) -> list[dict[str, Any]]:
    """The entries of the cuts since a checkpoint was distilled, the newest last; a run's original may have been cut
    before."""
    record = read_record(materials.store.checkpoint(checkpoint, weights=False)) or {"history": []}
    found: list[dict[str, Any]] = []
    for entry in reversed(record["history"]):
        if "pruned_from" not in entry:
            break
        found.append(entry)
        if entry["pruned_from"] == materials.original:
            break
    return found[::-1]
