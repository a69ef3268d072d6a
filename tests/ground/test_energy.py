"""Meters of energy read the machine's own counters, and say nothing where they cannot."""

import ctypes
from pathlib import Path
from typing import Any

import pytest

from lmmpress.host.energy import gpu_meter, processor_meter


def package(powercap: Path, number: int, microjoules: int, name: str = "package-0", most: int = 1_000_000) -> Path:
    folder = powercap / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    for file, value in (("name", name), ("max_energy_range_uj", most), ("energy_uj", microjoules)):
        (folder / file).write_text(f"{value}\n", "utf-8")
    return folder / "energy_uj"


def test_the_packages_of_the_processors_are_added(tmp_path: Path) -> None:
    first, second = package(tmp_path, 0, 100_000), package(tmp_path, 1, 200_000, "package-1")
    package(tmp_path, 2, 5, "psys")
    (tmp_path / "intel-rapl:0:0").mkdir()
    (tmp_path / "intel-rapl").mkdir()
    meter = processor_meter(tmp_path)
    assert meter is not None
    assert meter.how == "RAPL, 2 processor packages"
    before = meter.read()
    assert before == (100_000, 200_000)
    first.write_text("600000\n", "utf-8")
    second.write_text("200500\n", "utf-8")
    assert meter.joules(before, meter.read()) == pytest.approx(0.5005)


def test_a_counter_that_begins_anew_is_followed(tmp_path: Path) -> None:
    file = package(tmp_path, 0, 900_000, most=1_000_000)
    meter = processor_meter(tmp_path)
    assert meter is not None
    before = meter.read()
    file.write_text("50000\n", "utf-8")
    assert meter.joules(before, meter.read()) == pytest.approx(0.15)


def test_without_counters_there_is_no_meter(tmp_path: Path) -> None:
    assert processor_meter(tmp_path / "none") is None
    assert processor_meter(tmp_path) is None
    package(tmp_path, 0, 1).unlink()  # as unreadable as to a user who is not root
    assert processor_meter(tmp_path) is None


class Nvml:
    """The calls of NVML that are used, of a machine with one GPU."""

    def __init__(self, energy: int | None) -> None:
        self.energy = energy

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        return 0 if uuid == b"GPU-1" else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, total: Any) -> int:  # noqa: N802
        if self.energy is None:
            return 3
        ctypes.cast(total, ctypes.POINTER(ctypes.c_ulonglong)).contents.value = self.energy
        return 0


def test_a_gpu_is_measured_by_its_own_counter() -> None:
    nvml = Nvml(7)
    meter = gpu_meter(["GPU-1"], nvml)
    assert meter is not None
    before = meter.read()
    nvml.energy = 2507
    assert meter.joules(before, meter.read()) == pytest.approx(2.5)
    assert meter.how == "NVML, 1 whole GPU"


def test_a_gpu_without_a_counter_has_no_meter() -> None:
    assert gpu_meter(["GPU-1"], Nvml(None)) is None
    assert gpu_meter(["GPU-2"], Nvml(7)) is None
    assert gpu_meter([], Nvml(7)) is None
    assert gpu_meter(["GPU-1"], object()) is None, "a driver older than the call"
