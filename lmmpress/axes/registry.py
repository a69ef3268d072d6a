"""The definition of an axis, and the registry of all axes by name: those of this package and of other packages."""

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from lmmpress.axes.cut import NAME, Cut
from lmmpress.axes.layout import TowerLayout
from lmmpress.axes.slices import AxisAnatomy, Shapes
from lmmpress.errors import UserError
from lmmpress.settings.faults import nearest

ENTRY_POINTS = "lmmpress.axes"
"""The entry points through which another package offers an axis: each names an `Axis`."""

_RESERVED = ("original", "result")  # `evaluate` measures these besides the steps of stages

Config = dict[str, Any]
Expressed = Callable[[Config, Cut], Config]
"""A config after a cut."""


@dataclass(frozen=True)
class Axis:
    """The one declaration of an axis: plans, command line, pipelines, tables and reports use it.

    `about` says in a few words what becomes smaller. `component` is the Kubeflow component that cuts along the axis:
    the name of a folder in components/, or `module:function` of another package. `anatomy` returns the groups that a
    cut chooses among, from a tower's layout and the shapes of the model's tensors; None if the tower has nothing along
    the axis. With `needs_scores` a cut removes the dimensions of least importance, otherwise the last of each group.

    `resize` updates a config after a cut, if families do not know the axis: its arguments are the config, the cut, and
    the family's own function for cuts along axes that it knows. `rank` orders axes in tables and help. `always_scored`
    axes are scored together by one pass, whatever the plan is; any other axis is scored only for a plan with a stage
    along it, so that a new axis changes nothing for runs that do not use it.
    """

    name: str
    about: str
    component: str
    anatomy: Callable[[TowerLayout, Shapes], AxisAnatomy | None]
    needs_scores: bool = True
    resize: Callable[[Config, Cut, Expressed], Config] | None = None
    rank: int = 100
    always_scored: bool = False

    @property
    def component_name(self) -> str:
        """The name of the axis' component, without the module."""
        return self.component.rpartition(":")[2]


_axes: dict[str, Axis] = {}
_unusable: dict[str, str] = {}  # why an axis of another package cannot be used, by its name


def register(axis: Axis) -> Axis:
    """Add an axis. ValueError if the name is taken, reserved, or not valid."""
    if axis.name in _axes:
        raise ValueError(f"axis {axis.name!r} is registered twice")
    if axis.name in _RESERVED or not re.fullmatch(NAME, axis.name):
        raise ValueError(f"{axis.name!r} is no name of an axis: small letters, digits and _, not {_RESERVED}")
    _axes[axis.name] = axis
    return axis


def axes() -> tuple[Axis, ...]:
    """Every axis that can be used, by rank and name."""
    _load_all()
    return tuple(sorted(_axes.values(), key=lambda axis: (axis.rank, axis.name)))


def unusable() -> frozenset[str]:
    """The names of the axes of other packages that cannot be used; `axis_named` says why."""
    _load_all()
    return frozenset(_unusable)


def axis_named(name: str) -> Axis:
    """The axis of that name. Raises UserError with the nearest name if there is none, and with the reason if it is
    another package's and cannot be used."""
    _load_all()
    if name in _unusable:
        raise UserError(_unusable[name])
    if name not in _axes:
        raise UserError(f"there is no axis {name!r}; {nearest(name, [axis.name for axis in axes()])}")
    return _axes[name]


@lru_cache(maxsize=1)
def _load_all() -> None:
    """Import this package's axes, then register those that installed packages offer.

    A package whose axis cannot be used is in the way of nobody who does not use that axis.
    """
    import lmmpress.axes as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for offered in sorted(entry_points(group=ENTRY_POINTS), key=lambda one: one.name):
        try:
            axis = offered.load()
            if not isinstance(axis, Axis):
                raise TypeError(f"{offered.value} is no Axis")
            register(axis)
        except Exception as error:  # for any exception of another package the message names that package
            package_name = offered.dist.name if offered.dist else offered.value
            _unusable[offered.name] = (
                f"axis {offered.name!r} of package {package_name} cannot be used: {type(error).__name__}: {error}; "
                "mend the package or remove it"
            )
