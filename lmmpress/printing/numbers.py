"""Formats numbers for users."""

import math


def in_bytes(number: int) -> str:
    """Format a number of bytes: 1.50 GB."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number} B"


def in_gib(number: int) -> str:
    """Format a number of bytes as a limit of Kubernetes that is not below it: 1.5Gi."""
    return f"{math.ceil(10 * number / 2**30) / 10:.1f}Gi"


def in_short(number: int) -> str:
    """Format a number of parameters: 5.400 B, 1.50 M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3f} {letter}" if size == 1e9 else f"{number / size:.2f} {letter}"
    return str(number)


def faster(gain: float) -> str:
    """Format a ratio of speeds: 1.5x faster, or 2.0x slower if it is below 1."""
    return f"{gain:.1f}x faster" if gain >= 1 else f"{1 / gain:.1f}x slower"


def in_time(seconds: float) -> str:
    """Format seconds: 0:42, 13:05, 2 h 10 min."""
    whole = max(0, round(seconds))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def in_rate(each_second: float) -> str:
    """Format a number of things a second: 3.2/s, 26/min, 2.5/h."""
    for seconds, unit in ((1, "s"), (60, "min")):
        if each_second * seconds >= 1:
            return f"{each_second * seconds:.{0 if each_second * seconds >= 10 else 1}f}/{unit}"
    return f"{each_second * 3600:.1f}/h"


def in_kwh(kwh: float) -> str:
    """Format energy in three digits and always in kWh, so that numbers compare: 0.0000278 kWh, 1,250 kWh."""
    if kwh == 0:
        return "0 kWh"
    digits = min(max(2 - math.floor(math.log10(abs(kwh))), 0), 15)
    return f"{kwh:,.{digits}f} kWh"
