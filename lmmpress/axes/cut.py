"""A cut: which dimensions of one model stay. Small, JSON, composable."""

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

NAME = "[a-z][a-z0-9_]{0,39}"
"""What the name of an axis looks like: pipelines have parameters that begin with it."""


Kept = dict[str, list[int]]


class Cut(BaseModel):
    """What one step removes from one tower along one axis.

    `removed` is how much goes, a total over all heads for attention. `keep` maps the name of a group, as the anatomy of
    the model being cut spells it, to the sorted numbers of the dimensions that stay. Groups that are not named stay
    whole. A record may hold a cut along an axis that this installation does not have; such a cut can be shown, but not
    made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tower: str
    axis: Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
    # in records and hashes it has had the key `amount` from the first version on
    removed: int = Field(validation_alias=AliasChoices("removed", "amount"), serialization_alias="amount")
    keep: Kept

    def as_json(self) -> dict[str, Any]:
        """The cut as it stands in records, and in the names of what is computed from it."""
        return self.model_dump(mode="json", by_alias=True)
