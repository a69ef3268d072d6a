"""The steps that an earlier run kept, which a warm run follows."""

from typing import Annotated, Literal

from pydantic import Field

from lmmpress.settings.base import Settings

TowerName = Literal["vision", "qformer", "language", "largest"]

MOST_STEPS = 10_000
"""Of a stage."""


class ScheduledStep(Settings):
    """A step that an earlier run kept: the name of its stage, the tower as the plan names it, how much it removed."""

    stage: str
    tower: TowerName
    removed: Annotated[int, Field(gt=0)]


Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class RunEnds(Settings):
    """The two ends of a run, by digest: its original, and what its steps led to."""

    original: Digest
    result: Digest


class Schedule(Settings):
    """The steps that the run with the key `run` kept, in their order: what a warm run jumps along. `ends` are that
    run's, if a jump may carry over what it has learned."""

    run: Digest
    steps: Annotated[list[ScheduledStep], Field(min_length=1, max_length=MOST_STEPS)]
    ends: RunEnds | None = None
