"""What a peer is, what it is asked to do, and from where: the data that every peer's module is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from lmmpress.axes.cut import Cut, Kept
from lmmpress.engine.materials import Materials
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.checkpoint import apply_cuts

TOWER = "language"


@dataclass(frozen=True)
class Task:
    """What every peer has to make smaller: `removed` along an `axis` of the language tower. It then learns for so many
    `epochs`. It starts from the sample's model, or from that after its block stage (`shallow`)."""

    name: str
    axis: str
    removed: int
    epochs: int = 1
    shallow: bool = True


@dataclass(frozen=True)
class Case:
    """A task with what it is done on: the sample's materials, the digest of the checkpoint to cut, and the seed."""

    task: Task
    materials: Materials
    start: str
    seed: int

    @property
    def anatomy(self) -> Anatomy:
        """The anatomy of the checkpoint to cut."""
        return self.materials.anatomy_of(self.start)


Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""The loss at each position [positions], from logits of student and teacher [positions, vocabulary]."""


@dataclass(frozen=True)
class Peer:
    """A way to do tasks. `cut` gives the digest of the cut checkpoint, which is in the materials' store.

    It does the tasks along `axes`, or those that `only` names; `why_not` says of an axis why it does not. `package` is
    the distribution that it needs. `settings` are those that it is used with, and where they come from. `loss` makes
    the loss that is learned with, in place of lmmpress's. `epochs` is what is left to learn after `cut`, if `cut`
    learns itself.
    """

    name: str
    cut: Callable[[Case], str]
    axes: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    package: str = ""
    why_not: Mapping[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    loss: Callable[[], Loss] | None = None
    epochs: int | None = None

    def listed(self, task: Task) -> bool:
        """Whether it has a row in a task: of figures, or of the reason why it does not do it."""
        if task.axis in self.axes:
            return not self.only or task.name in self.only
        return task.axis in self.why_not


MODULES = {
    "torch-pruning": ("torch_pruning",),
    "nvidia-modelopt": ("modelopt.torch.prune", "modelopt.torch.distill"),
    "trl": ("trl.experimental.gkd",),
}
"""What is imported of each package."""


def import_all() -> None:
    """Import what is installed of the packages, so that no row's seconds and memory have an import in them."""
    for package, modules in MODULES.items():
        if not missing(package):
            for module in modules:
                import_module(module)


def missing(package: str) -> str | None:
    """Why a package cannot be used: it is not installed. None if it is, or if there is none to install."""
    try:
        if package:
            version(package)
    except PackageNotFoundError:
        return f"{package} is not installed; install bench/peers/requirements.txt"
    return None


def keep(case: Case, kept: Kept) -> str:
    """Cut the case's checkpoint so that these dimensions stay, by group; the digest of the result."""
    cut = Cut(tower=TOWER, axis=case.task.axis, removed=case.task.removed, keep=kept)
    store = case.materials.store
    with store.scratch() as folder:
        apply_cuts(store.checkpoint(case.start), case.anatomy, [cut], folder / "checkpoint")
        return store.add_checkpoint(folder / "checkpoint")
