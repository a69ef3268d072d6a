"""Settings of a watched model about its compressed versions: what may be promoted, and what counts as drift."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PromotionSettings(_Section):
    """The rule that a compressed version has to keep before it is promoted. Rolling back needs none of this."""

    comparison: bool = True
    """Whether a comparison of the original and this compressed version has to be in the store."""
    most_lost: Share = 0.02
    """How much accuracy it may lose from the original, in that comparison."""
    certain: bool = False
    """Whether the upper bound of the loss's interval has to keep to `most_lost`, and not just the loss itself."""
    least_rows: Annotated[int, Field(ge=1)] = 1
    """A comparison on fewer rows does not count."""
    data: str | None = None
    """The digest of the rows that a comparison has to be made on, if only some count."""
    second_person: bool = False
    """Whether a second person has to confirm a promotion."""


class DriftSettings(_Section):
    """When the accuracy in production is said to drift."""

    alpha: Share = 0.02
    """How much less accurate the compressed model may be than the original."""
    certain: bool = True
    """Whether the lower bound of the loss's interval has to be above `alpha`, so that chance raises no notice."""
    least_rows: Annotated[int, Field(ge=1)] = 100
    """Rows that each of the two models must have, on a day or on all days of the table."""
