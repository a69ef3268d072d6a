"""Numbers as people read them."""


def in_bytes(number: int) -> str:
    """A number of bytes."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number} B"


def in_short(number: int) -> str:
    """A number of parameters."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3f} {letter}" if size == 1e9 else f"{number / size:.2f} {letter}"
    return str(number)


def faster(gain: float) -> str:
    """A gain of speed; a loss is called slower."""
    return f"{gain:.1f}x faster" if gain >= 1 else f"{1 / gain:.1f}x slower"
