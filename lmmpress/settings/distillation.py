"""A plan's settings of how a pruned model learns."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from lmmpress.settings.base import Settings
from lmmpress.settings.caches import CacheSettings
from lmmpress.settings.economy import NO_ECONOMY, Economy, Optimizer, Weights

Draw = Literal["even", "random", "by_task"]

MICRO_BATCH = 64
"""So many rows are tried first where `micro_batch_size` is `auto`. Run keys have this number in its place: it was the
default before there was `auto`."""


class Distillation(Settings):
    """How a pruned model learns from the teacher after every step (Eq. 5, section 4.2).

    With `refit_rows`, the linear layers of a tower that was cut are first fitted to what they computed before, by least
    squares on so many rows.
    After the last step that the stages can make it takes `last_epochs` in place of `epochs`, if there are any.
    With `stop_within` a tenth of the rows is kept aside, and a step ends with an epoch after which the student answers
    more than 1 - alpha of these as the teacher does.

    `kl` is `reverse` as Eq. 5 prints it, KL(student, teacher), or `forward`, at a `temperature`. `pairwise` is the
    hinge of Eq. 5, the `margin` of the correct token over the strongest wrong one, or `none`; `gamma` is its weight.
    `hard_labels` is the weight of an additional cross-entropy on the answers, and `states` that of how far the inputs
    of the student's head are from the teacher's. With `learning_rate` `auto` every step finds its own. One update uses
    `batch_size` rows, in portions of `micro_batch_size`, or of fewer where these do not fit into the memory; with
    `auto` MICRO_BATCH are tried first. `rows` of the split are used, or all (Fig. 7): `draw` takes them evenly over the
    split, at `random`, or at random with each task's share (`by_task`). `processes` is the number of processes, one per
    GPU if there are GPUs: each holds the whole student with `sharding` `none`, a share of it with `full`, and with
    `auto` a share where a GPU has no room for the whole. With `caches`, the teacher's hidden states and, while they
    cannot change, the visual features are computed once per run instead of in every step; they may have a budget.
    With `image_side` `features`, a step that cuts a tower of the image side trains the image side alone, on what the
    original's hands over to the language side; every other step leaves the image side as it is.

    The student's `weights` while it learns, the `optimizer` (AdamW, with averages of 32 or of 8 bits), and whether the
    backward pass makes each block's forward pass again (`recompute`) decide how much memory a training takes. With
    `auto` each is as it always was where that fits, see `lmmpress.pruning.economy.choose`.
    """

    added_later: ClassVar[frozenset[str]] = frozenset(
        {
            *("refit_rows", "last_epochs", "temperature", "stop_within", "image_side"),
            *("optimizer", "weights", "recompute", "sharding", "states"),
        }
    )

    epochs: Annotated[int, Field(ge=0)] = 4
    last_epochs: Annotated[int, Field(gt=0)] | None = None
    stop_within: bool = False
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = 3.0e-5
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Annotated[int, Field(gt=0)] = 1024
    micro_batch_size: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    rows: Annotated[int, Field(gt=0)] | None = None
    draw: Draw = "even"
    kl: Literal["reverse", "forward"] = "reverse"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    gamma: Annotated[float, Field(ge=0)] = 1.0
    pairwise: Literal["eq5", "margin", "none"] = "eq5"
    hard_labels: Annotated[float, Field(ge=0)] = 0.0
    states: Annotated[float, Field(ge=0)] = 0.0
    processes: Annotated[int, Field(gt=0)] = 1
    sharding: Literal["auto", "none", "full"] = "auto"
    caches: bool | CacheSettings = True
    refit_rows: Annotated[int, Field(ge=0)] = 0
    image_side: Literal["answers", "features"] = "answers"
    optimizer: Literal["auto"] | Optimizer = "auto"
    weights: Literal["auto"] | Weights = "auto"
    recompute: Literal["auto", "always", "never"] = "auto"

    def economy(self, otherwise: Economy = NO_ECONOMY) -> Economy:
        """The economy that these settings name, and what they leave open as in another one."""
        said = {"optimizer": self.optimizer, "weights": self.weights}
        changes: dict[str, Any] = {name: value for name, value in said.items() if value != "auto"}
        if self.recompute != "auto":
            changes["recompute"] = self.recompute == "always"
        return otherwise.model_copy(update=changes)

    @property
    def cached(self) -> CacheSettings | None:
        """How much of the teacher's work is kept, and how; None if nothing is."""
        if isinstance(self.caches, CacheSettings):
            return self.caches
        return CacheSettings() if self.caches else None

    @property
    def caches_in_key(self) -> Any:
        """What of the caches a run's outcome depends on: whether there are some, and their dtype where it is given."""
        dtype = self.caches.dtype if isinstance(self.caches, CacheSettings) else None
        return {"dtype": dtype} if dtype else bool(self.caches)

    @property
    def rows_at_once(self) -> int:
        """The most rows of one forward pass; fewer where they do not fit into the memory."""
        return MICRO_BATCH if self.micro_batch_size == "auto" else self.micro_batch_size
