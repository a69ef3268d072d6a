"""Energy is measured where counters move, else estimated from stated watts, and always says which."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.certain import certain

from lmmpress.host import energy_use
from lmmpress.host.energy import Counter, Meter
from lmmpress.host.energy_use import Device, Energy, Gauge, Watts, gauge_of, total, watching

KWH = 3_600_000.0  # joules


def meter(how: str, *joules: float | None) -> Meter:
    """A meter that reads these joules, one after the other; None if it cannot be read."""
    values = iter(joules)

    def read() -> int:
        value = next(values)
        if value is None:
            raise OSError("gone")
        return round(value * 1e6)

    return Meter(how, (Counter(read),))


def used(*devices: Device) -> Energy | None:
    """The energy between two readings."""
    gauge = Gauge(devices)
    first = gauge.read()
    return gauge.used([(first, gauge.read())])


def package(powercap: Path, joules: float) -> Path:
    folder = powercap / "intel-rapl:0"
    folder.mkdir(parents=True)
    for file, value in (("name", "package-0"), ("max_energy_range_uj", 10**9), ("energy_uj", round(joules * 1e6))):
        (folder / file).write_text(f"{value}\n", "utf-8")
    return folder / "energy_uj"


def test_counters_that_move_are_measured(tmp_path: Path) -> None:
    file = package(tmp_path, 100)
    gauge = certain(gauge_of("cpu", 1, Watts(core=10), tmp_path))
    first = gauge.read()
    file.write_text(f"{172 * 10**6}\n", "utf-8")
    found = certain(gauge.used([(first, gauge.read())]))
    assert found.kwh == pytest.approx(72 / KWH)
    assert (found.kind, found.measured, found.how) == ("measured", 1.0, ("RAPL, 1 processor package",))


@pytest.mark.parametrize("spoil", [lambda file: None, lambda file: file.unlink()])
def test_counters_that_stand_still_or_vanish_leave_an_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    file, spent = package(tmp_path, 100), iter([5.0, 7.0])
    monkeypatch.setattr(energy_use, "cpu_seconds", lambda: next(spent))
    gauge = certain(gauge_of("cpu", 1, Watts(core=9), tmp_path))
    first = gauge.read()
    spoil(file)
    found = certain(gauge.used([(first, gauge.read())]))
    assert found.kwh == pytest.approx(2 * 9 / KWH)
    assert (found.kind, found.measured, found.how) == ("estimated", 0.0, ("9 W a core, times CPU seconds",))


def test_a_mixture_is_an_estimate_that_says_how_much_is_measured() -> None:
    gpu = Device(meter("NVML, 1 whole GPU", 0, 90), None)
    found = certain(used(Device(None, meter("10 W a core", 0, 10)), gpu))
    assert found.kwh == pytest.approx(100 / KWH)
    assert found.kind == "estimated"
    assert found.label == "estimated, 90 % of it measured"
    assert found.how == ("10 W a core", "NVML, 1 whole GPU")


def test_a_device_of_which_nothing_is_known_leaves_no_figure() -> None:
    """The processors alone would be far too little."""
    assert used(Device(None, meter("10 W a core", 0, 10)), Device(meter("NVML", 5, None), None)) is None


def test_without_counters_and_watts_of_gpus_there_is_no_gauge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(energy_use, "gpu_uuids", lambda count: [f"GPU-{number}" for number in range(count)])
    monkeypatch.setattr(energy_use, "gpu_meter", lambda uuids: None)
    assert gauge_of("cuda", 2, Watts(core=10), tmp_path) is None
    assert gauge_of("mps", 1, Watts(core=10, gpu=30), tmp_path) is None
    gauge = certain(gauge_of("cuda", 2, Watts(core=10, gpu=300), tmp_path))
    assert [certain(device.estimate).how for device in gauge.devices] == [
        "10 W a core, times CPU seconds",
        "300 W a GPU, times seconds, 2 GPUs",
    ]


def test_a_driver_that_fails_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(count: int) -> list[str]:
        raise RuntimeError("CUDA driver initialization failed")

    monkeypatch.setattr(energy_use, "gpu_uuids", fails)
    assert gauge_of("cuda", 1, Watts(core=10, gpu=300), tmp_path) is None


def test_cpu_seconds_are_those_of_work_and_not_of_waiting(tmp_path: Path) -> None:
    gauge = certain(gauge_of("cpu", 1, Watts(core=10), tmp_path))
    with watching(gauge) as watched:
        begun = energy_use.cpu_seconds()
        while energy_use.cpu_seconds() - begun < 0.02:
            pass
    assert certain(watched.energy).kwh >= 0.02 * 10 / KWH


def test_a_long_block_is_read_again_and_again() -> None:
    """A counter that begins anew twice would else lose a whole turn."""
    enough, stands = threading.Event(), iter([0, 600_000, 200_000, 800_000, 400_000])
    last = 400_000

    def read() -> int:
        value = next(stands, last)
        if value == last:
            enough.set()
        return value

    gauge = Gauge((Device(Meter("RAPL", (Counter(read, most=1_000_000),)), None),))
    with watching(gauge, every=0.001) as watched:
        assert enough.wait(30)
    assert certain(watched.energy).kwh == pytest.approx(2.4 / KWH)


def test_a_block_that_fails_fails_as_it_would_alone() -> None:
    with pytest.raises(ZeroDivisionError), watching(Gauge((Device(None, meter("x", 0, 1)),))):
        _ = 1 / 0
    with watching(None) as watched:
        pass
    assert watched.energy is None


def test_energies_add_up_with_their_labels() -> None:
    measured = Energy(kwh=3, kind="measured", measured=1, how=("RAPL",))
    estimated = Energy(kwh=1, kind="estimated", measured=0, how=("10 W a core",))
    assert total([]) is None
    assert total([measured, measured]) == measured.times(2)
    both = certain(total([measured, estimated, estimated.times(0)]))
    assert (both.kwh, both.kind, both.measured, both.how) == (4, "estimated", 0.75, ("RAPL", "10 W a core"))


def test_that_of_one_of_several_machines_is_an_estimate_for_all_of_them() -> None:
    one = Energy(kwh=0.5, kind="measured", measured=1.0, how=("NVML, 8 GPUs",))
    all_of_them = one.on(4)
    assert (all_of_them.kwh, all_of_them.kind, all_of_them.measured) == (2.0, "estimated", 0.25)
    assert all_of_them.how == ("NVML, 8 GPUs", "of one of 4 machines, times 4")
