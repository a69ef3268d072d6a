"""A cut: which dimensions of one model stay. Small, JSON, composable."""

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

NAME = "[a-z][a-z0-9_]{0,39}"
"""The pattern of an axis' name: names of pipeline parameters begin with it."""


Kept = dict[str, list[int]]


class Cut(BaseModel):
    """What one step removes from one tower along one axis.

    `removed` is how much the cut takes away, a total over all heads for attention. `keep` maps the name of a group, as
    in the anatomy of the model being cut, to the sorted numbers of the dimensions that stay. Groups that are not named
    stay whole. A record may hold a cut along an axis that this installation does not have; such a cut can be shown, but
    not applied.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tower: str
    axis: Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
    # in records and hashes its key has been `amount` since the first version
    removed: int = Field(validation_alias=AliasChoices("removed", "amount"), serialization_alias="amount")
    keep: Kept

    def as_json(self) -> dict[str, Any]:
        """The cut as a mapping: its form in records, and in the names of results that are computed from it."""
        return self.model_dump(mode="json", by_alias=True)
