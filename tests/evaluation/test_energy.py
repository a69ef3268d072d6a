"""The formulas of docs/energy.md: of inferences, of what compressing took, and of what it saves."""

from typing import Any

import pytest
from support.certain import certain
from support.results import TIMING

from lmmpress.evaluation.energy import of_inferences, run_energy
from lmmpress.evaluation.speed import Times
from lmmpress.host.energy import Counter, Meter
from lmmpress.host.energy_use import Device, Energy, Gauge

KWH = 3_600_000.0  # joules


def energy(kwh: float, **changes: Any) -> Energy:
    return Energy(kwh=kwh, kind="estimated", measured=0, how=("10 W a core",)).model_copy(update=changes)


def test_inferences_are_those_of_the_timed_passes() -> None:
    """Seven passes over 64 rows, each of 32 J: 500 J for 1,000 inferences."""
    gauge = Gauge((Device(Meter("RAPL", (Counter(lambda: 0),)), None),))
    spans = [(((1000,), None), ((32_001_000,), None))] * TIMING.passes
    times = Times(32, [2.0] * TIMING.passes, spans, [1.0], 3.0, None, TIMING)
    found = certain(of_inferences(times, gauge))
    assert found.kwh == pytest.approx(500 / KWH)
    assert found.kind == "measured"
    assert of_inferences(times, None) is None


def test_it_pays_after_as_many_inferences_as_save_what_it_took() -> None:
    parts = {"distill": [energy(0.75), energy(0.25)], "evaluate": [energy(0.5)]}
    found = certain(run_energy([energy(0.010), energy(0.004)], parts, 1_000_000))
    assert certain(found.compression).kwh == pytest.approx(1.5)
    assert {part: one.kwh for part, one in found.by_part.items()} == {"distill": 1.0, "evaluate": 0.5}
    assert found.is_whole
    assert found.break_even == 250_000
    assert found.saved_per_year == pytest.approx(6.0)
    saved = certain(found.saved)
    assert (found.break_even - 1) * saved / 1000 < 1.5 <= found.break_even * saved / 1000 + 1e-9


def test_a_part_without_energy_makes_the_sum_a_least() -> None:
    found = certain(run_energy([energy(2), energy(1)], {"prune": [None], "distill": [energy(3), None]}, None))
    assert not found.is_whole
    assert certain(found.compression).kwh == 3
    assert found.saved_per_year is None


@pytest.mark.parametrize("after", [0.010, 0.011])
def test_a_model_that_takes_no_less_never_pays(after: float) -> None:
    found = certain(run_energy([energy(0.010), energy(after)], {"distill": [energy(1)]}, 1000))
    assert found.break_even is None
    assert certain(found.saved_per_year) <= 0


def test_without_inferences_there_is_what_compressing_took() -> None:
    found = certain(run_energy([None, energy(1)], {"distill": [energy(1)]}, 1000))
    assert (found.original, found.compressed, found.break_even, found.saved_per_year) == (None, None, None, None)
    assert certain(found.compression).kwh == 1
    assert run_energy([None, None], {"distill": [None]}, None) is None, "a run of an older version"
