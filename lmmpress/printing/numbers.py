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
