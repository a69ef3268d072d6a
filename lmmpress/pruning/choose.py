"""Which dimensions stay: from scores to a cut (sections 3.3.1 to 3.3.3)."""

import torch

from lmmpress.axes import axis_named
from lmmpress.axes.cut import Cut
from lmmpress.axes.slices import AxisAnatomy, Group
from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.pruning.importance import Scores


def choose(anatomy: Anatomy, tower: str, axis: str, removed: int, scores: Scores | None) -> Cut:
    """The cut that removes so much from a tower: each group's least important dimensions, or along an axis that needs
    no scores its last ones, as blocks go (section 3.3.1).

    `scores` maps each group's name to one number per dimension. Ties go to the lower dimension staying, so that a cut
    depends on its inputs alone. Raises UserError where no cut can remove that.
    """
    body = anatomy.axis(tower, axis)
    check_removed(body, tower, axis, removed)
    if not axis_named(axis).needs_scores:
        keep = {group.name: list(range(_staying(group, body, removed))) for group in body.groups}
    elif scores is None:
        raise ValueError(f"a cut along {axis} needs scores")
    else:
        keep = {group.name: _most_important(scores[group.name], group, body, removed) for group in body.groups}
    return Cut(tower=tower, axis=axis, removed=removed, keep=keep)


def check_removed(body: AxisAnatomy, tower: str, axis: str, removed: int) -> None:
    """Raise UserError, naming the nearest legal value, where no cut along an axis can remove that."""
    if removed < 1:
        raise UserError(f"{axis} of the {tower} tower: {removed} is nothing to remove, at least {body.unit}")
    if removed >= body.width:
        raise UserError(
            f"{axis} of the {tower} tower is {body.width} wide: {removed} cannot be removed, at most "
            f"{body.width - body.unit}"
        )
    if removed % body.unit:
        lower = removed // body.unit * body.unit
        legal = [value for value in (lower, lower + body.unit) if 0 < value < body.width]
        raise UserError(
            f"{axis} of the {tower} tower shrinks by multiples of {body.unit} (every head alike, rotary planes whole): "
            f"{removed} is none, the nearest legal value is {' or '.join(map(str, legal))}"
        )


def _staying(group: Group, body: AxisAnatomy, removed: int) -> int:
    return group.size - body.dimensions(removed, group)


def _most_important(scores: torch.Tensor, group: Group, body: AxisAnatomy, removed: int) -> list[int]:
    order = torch.sort(scores, descending=True, stable=True).indices.tolist()
    kept = order[: _staying(group, body, removed)]
    if group.anchored and min(kept) >= group.anchored:
        kept[-1] = next(number for number in order if number < group.anchored)
    return sorted(kept)
