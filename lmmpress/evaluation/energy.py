"""The energy of inferences, and what a run's compression took and saves: the formulas of docs/energy.md."""

import math
from collections.abc import Mapping, Sequence

from lmmpress.evaluation.speed import Times
from lmmpress.host.energy_use import Energy, Gauge, total
from lmmpress.result import RunEnergy

SHOWN = 1000
"""The number of inferences whose energy is shown."""


def of_inferences(times: Times, gauge: Gauge | None) -> Energy | None:
    """The energy of 1,000 inferences, from the passes that speed is measured in; None if it is unknown."""
    used = gauge.used(times.spans) if gauge else None
    return used and used.times(SHOWN / (times.timing.passes * times.timing.rows))


def run_energy(
    inferences: Sequence[Energy | None], parts: Mapping[str, Sequence[Energy | None]], per_year: int | None
) -> RunEnergy | None:
    """The energy of a run: of 1,000 `inferences` of the original and of the compressed model, and of what was computed
    for each of its `parts`. None if nothing is known."""
    original, compressed = inferences
    if original is None or compressed is None:
        original = compressed = None  # one of them alone compares with nothing
    by_part = {part: energy for part, of in parts.items() if (energy := total(one for one in of if one))}
    compression = total(by_part.values())
    if original is None and compression is None:
        return None
    saved = original.kwh - compressed.kwh if original and compressed else None
    return RunEnergy(
        original=original,
        compressed=compressed,
        compression=compression,
        by_part=by_part,
        is_whole=all(one is not None for of in parts.values() for one in of),
        break_even=_break_even(compression, saved),
        inferences_per_year=per_year,
        saved_per_year=saved * per_year / SHOWN if per_year and saved is not None else None,
    )


def _break_even(compression: Energy | None, saved: float | None) -> int | None:
    """After how many inferences as much is saved as the compression took, where 1,000 of them save so much."""
    if compression is None or saved is None or saved <= 0:
        return None
    times = SHOWN * compression.kwh / saved
    return math.ceil(times) if math.isfinite(times) else None
