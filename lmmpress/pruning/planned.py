"""The sizes that a plan leads to and the memory that its parts need, as tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from lmmpress.axes import axes
from lmmpress.printing.numbers import in_gib, in_short
from lmmpress.printing.sheet import Grid, Part, Shown
from lmmpress.pruning.foreseen import Foresight
from lmmpress.pruning.memory import Need
from lmmpress.pruning.sizes import Size

_NOTE = "memory at least: processes, weights, gradients and optimizer states; rows come on top"


@dataclass(frozen=True, repr=False)
class Sizes(Shown, Sequence[Size]):
    """The uncut model, and the model after every step of a plan if the gate accepts them all; and the memory that each
    part of a step needs at least. `start` says which run a warm run starts from, or why it starts from none; `shares`
    which numbers the plan's shares became; `caches` how large caches get; the `foresight` what each stage takes on the
    hardware that was asked for."""

    sizes: tuple[Size, ...]
    memory: tuple[Need, ...] = ()
    start: str = ""
    shares: tuple[str, ...] = ()
    caches: str = ""
    foresight: Foresight | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, place: int) -> Size: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Size, ...]: ...
    def __getitem__(self, place: int | slice) -> Size | tuple[Size, ...]:
        return self.sizes[place]

    def as_list(self) -> list[dict[str, Any]]:
        """What `lmmpress plan --json` prints."""
        return [vars(size) for size in self.sizes]

    def as_json(self) -> list[dict[str, Any]] | dict[str, Any]:
        """The same, with the foresight beside the sizes if there is one."""
        return {"sizes": self.as_list(), **self.foresight.as_dict()} if self.foresight else self.as_list()

    def __repr__(self) -> str:
        first, last = (in_short(_all(size)) for size in (self.sizes[0], self.sizes[-1]))
        return f"<{len(self) - 1} planned steps: {first} -> {last} parameters if all are accepted>"

    def shown(self) -> tuple[Part, ...]:
        """A row for each step, of which the uncut model has one for each tower that the plan cuts; then one for each
        part."""
        names, rows = [axis.name for axis in axes()], []
        for size in self.sizes:
            label, removed = (f"{size.stage} {size.index + 1}", str(size.removed)) if size.removed else (size.stage, "")
            for number, tower in enumerate(size.tower.split(", ")):
                widths = [str(size.widths.get(f"{tower}.{name}", "")) for name in names]
                counts = [in_short(size.parameters_by_tower[tower]), in_short(_all(size))]
                rows.append(("" if number else label, tower, removed, *widths, *counts))
        head = ("step", "tower", "removes", *names, "tower parameters", "all parameters")
        start = (self.start,) if self.start else ()
        return (
            Grid(head, tuple(rows)),
            *self.shares,
            *start,
            *self._takes(),
            *((self.caches,) if self.caches else ()),
        )

    def _takes(self) -> tuple[Part, ...]:
        """What the run takes: on the hardware that was asked for, or the least memory of each part."""
        if self.foresight:
            return self.foresight.shown()
        return (_memory_table(self.memory), _NOTE) if self.memory else ()


def _all(size: Size) -> int:
    return sum(size.parameters_by_tower.values())


def _memory_table(needs: tuple[Need, ...]) -> Grid:
    rows = [
        (need.part, in_gib(need.process), in_gib(need.process_with_gpu), in_gib(need.gpu) if need.gpu else "")
        for need in needs
    ]
    return Grid(("part", "without a GPU", "beside a GPU", "on each GPU"), tuple(rows))
