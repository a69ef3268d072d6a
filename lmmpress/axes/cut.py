"""A cut: which dimensions of one model stay. Small, JSON, composable."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

NAME = "[a-z][a-z0-9_]{0,39}"
"""What the name of an axis looks like: pipelines have parameters that begin with it."""


Kept = dict[str, list[int]]


class Cut(BaseModel):
    """What one step removes from one tower along one axis.

    `keep` maps the name of a group, as the anatomy of the model being cut spells it, to the sorted numbers of the
    dimensions that stay. Groups that are not named stay whole. A record may hold a cut along an axis that this
    installation does not have; such a cut can be shown, but not made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tower: str
    axis: Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
    amount: int
    keep: Kept
