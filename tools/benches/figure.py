"""A figure that docs name and a result file holds."""

from dataclasses import dataclass

Path = tuple[str, ...]
"""Keys into a result file, from its top; `*` stands for each item of a list."""


@dataclass(frozen=True)
class Figure:
    """A number of a result file, and where docs print it.

    `file` is the result's name without .json. With `over`, the figure is the number at `path` over that at `over`.
    `least` and `most` are the target. `places` and `times` say how it is printed: decimals, and times what (100 for a
    percentage). `near` is text in the row or the paragraph of `page` that prints it.
    """

    what: str
    file: str
    path: Path
    near: str
    most: float | None = None
    least: float | None = None
    places: int = 2
    times: float = 1
    over: Path | None = None
    page: str = "docs/benchmarks.md"
