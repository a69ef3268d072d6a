"""How many rows a run has and how long they are: what is known of them before they are read as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from lmmpress.lmm.anatomy import Anatomy
from lmmpress.plan import Plan
from lmmpress.pruning.work import Portion
from lmmpress.result import Role


@dataclass(frozen=True)
class RoleRows:
    """The rows of a role: how many there are; the tokens of a row, on average and at most, with those of its images and
    its answer; the answer positions and images of a row on average; how many different images there are."""

    rows: int
    tokens: float
    longest: int
    answers: float
    images: float = 0.0
    pictures: int = 0

    def portion(self, rows: int) -> Portion:
        """So many rows at a time, or all if there are fewer, all as long as the longest."""
        rows = max(1, min(rows, self.rows))
        return Portion(rows, self.longest, max(1, round(rows * self.answers)), ceil(rows * self.images))

    @property
    def filled(self) -> float:
        """The share of the longest row that a row has on average: batches have rows of like lengths."""
        return self.tokens / self.longest


AllRows = Mapping[Role, RoleRows]


def assumed_rows(plan: Plan, anatomy: Anatomy) -> dict[Role, RoleRows]:
    """Rows where the data cannot be read: short questions about one picture each."""
    config = anatomy.config
    images = 1.0 if anatomy.projector is not None else 0.0
    seen = int(config.get("num_query_tokens") or config.get("image_seq_length") or 0) if images else 0  # type: ignore[call-overload]
    usual = RoleRows(1000, seen + 40, seen + 64, 8.0, images, 1000 if images else 0)
    limits = {"score": plan.importance.rows, "distill": plan.distillation.rows or 10_000}
    roles: tuple[Role, ...] = ("score", "distill", "gate", "test")
    found: dict[Role, RoleRows] = {}
    for role in roles:
        rows = limits.get(role) or usual.rows
        found[role] = replace(usual, rows=rows, pictures=rows if images else 0)
    return found
