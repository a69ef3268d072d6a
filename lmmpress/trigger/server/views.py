"""What the REST interface takes and gives, as JSON."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from lmmpress.trigger.acts import LONGEST_WHY, Act
from lmmpress.trigger.claims import Claim
from lmmpress.trigger.comparisons import Comparison, Kept
from lmmpress.trigger.promotion import Serving, Waiting
from lmmpress.trigger.registry import Version

Why = Annotated[str, Field(max_length=LONGEST_WHY, description="The reason, for those who look later.")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class FireAsked(_Asked):
    """Have the version of a model compressed that is to be compressed now."""

    plan: Annotated[str, Field(max_length=200)] | None = None
    """One of the plans that are allowed for the model; else its default plan."""
    why: Why = ""


class ActAsked(_Asked):
    """Cancel a claim, or try it again."""

    why: Why = ""


Seen = Annotated[
    str | None,
    Field(
        max_length=40,
        description="The version that you have seen in service, null for none: if another one is there now, nothing "
        "is done. `any` takes whatever is there.",
    ),
]
Reason = Annotated[str, Field(min_length=1, max_length=LONGEST_WHY, description="The reason. It is needed.")]


class PromoteAsked(_Asked):
    """Put a version of the compressed model into service."""

    version: Annotated[str, Field(min_length=1, max_length=40)]
    seen: Seen
    why: Reason


class RollBackAsked(_Asked):
    """Put the version before into service again."""

    seen: Seen
    why: Reason


class ComparisonsAsked(BaseModel):
    """Of which version of the compressed model comparisons are shown."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[str, Field(min_length=1, max_length=40)]


class ClaimsAsked(BaseModel):
    """Which claims are shown."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(max_length=500)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class ActsAsked(BaseModel):
    """Which acts are shown: those of a day."""

    model_config = ConfigDict(extra="forbid")

    day: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]


class ErrorView(BaseModel):
    """Why a request was not done, in one line."""

    error: str


class VersionView(BaseModel):
    """A version of a registered model."""

    version: str
    created: float | None = None
    """Seconds since the epoch."""


class ClaimView(BaseModel):
    """A claim: the question that is answered, how far it has come, and who asked."""

    key: str
    model: str
    version: str
    digest: str
    data: str | None
    plan: str
    pipeline: str
    state: str
    attempt: int
    by: str
    cause: str
    why: str
    at: dict[str, float]
    """When each state began, in seconds since the epoch."""
    run: str
    """The name of the run, which the engine and MLflow have too."""
    link: str | None
    """Where people see the run."""
    note: str | None


class ModelView(BaseModel):
    """A watched model."""

    name: str
    follows: str
    """`newest`, or the alias that names the version to compress, as `@release`."""
    plans: list[str]
    """The plans that may be used for it; the default one is first."""
    compressed: str
    """The name that its compressed versions are registered under."""
    newest: VersionView | None
    in_service: VersionView | None
    """The version of the compressed model that is in service."""
    claim: ClaimView | None
    """The claim that was made last."""
    fault: str | None = None
    """Why the registry did not say which versions there are."""


class ModelsView(BaseModel):
    models: list[ModelView]


class ClaimsView(BaseModel):
    claims: list[ClaimView]


class ActsView(BaseModel):
    acts: list[Act]


class DeliveryView(BaseModel):
    """What came of a delivery. A delivery that comes again gets the same answer."""

    delivery: str
    model: str | None
    noted: bool
    """Whether the model is watched, so that it will be looked at."""


class InServiceView(BaseModel):
    """The version in service, and the move that has put it there."""

    version: str
    before: str | None
    """The version that rolling back leads to."""
    since: float | None
    """Seconds since the epoch; null where somebody has moved the alias without lmmpress."""
    by: str
    why: str


class WaitingView(BaseModel):
    """A promotion that a second person has to confirm, by promoting the same version."""

    version: str
    by: str
    since: float
    why: str


class ServingView(BaseModel):
    """What is in service of a compressed model."""

    compressed: str
    alias: str
    in_service: InServiceView | None
    waiting: WaitingView | None


class KeptView(BaseModel):
    """What is kept of a comparison of an original (A) and its compressed version (B)."""

    version: str
    """The version of the compressed model."""
    counts: bool
    """Whether the model's rule of promotion takes it into account."""
    by: str
    at: float
    """Seconds since the epoch."""
    comparison: Comparison
    agreement: float | None
    """The share of rows with equal answers."""
    smaller: float | None
    """How many times as many parameters A has."""
    lighter: float | None
    """How many times as large A's files of weights are."""


class KeptsView(BaseModel):
    comparisons: list[KeptView]


class AppendedView(BaseModel):
    """What has come of rows of production."""

    rows: int
    days: list[str]
    known: bool
    """Whether all of them were there before, so that nothing was counted."""


class CountView(BaseModel):
    """Answers that were counted."""

    right: int
    rows: int
    accuracy: float | None


class DropIntervalView(BaseModel):
    low: float
    high: float
    confidence: float


class DayView(BaseModel):
    """A day in UTC, or all days where `day` is null."""

    day: str | None
    original: CountView
    compressed: CountView
    versions: list[str]
    """The versions of the compressed model that have answered, as far as the rows name them."""
    drop: float | None
    drop_interval: DropIntervalView | None
    drifts: bool
    """Whether the loss is beyond alpha."""


class OnlineView(BaseModel):
    """The last seven days in production, the oldest first, and all of them together."""

    compressed: str
    alpha: float
    days: list[DayView]
    all: DayView


class HealthView(BaseModel):
    status: str
    faults: list[str] = []


def claim_view(claim: Claim) -> ClaimView:
    """A claim as the interface shows it."""
    question = claim.question
    return ClaimView(
        key=claim.key,
        model=question.model,
        version=question.version,
        digest=question.digest,
        data=question.data,
        plan=question.plan_name,
        pipeline=question.pipeline,
        state=claim.state.value,
        attempt=claim.attempt,
        by=claim.by,
        cause=claim.cause.value,
        why=claim.why,
        at={state.value: at.timestamp() for state, at in claim.at.items()},
        run=claim.run,
        link=claim.sent.link or None if claim.sent else None,
        note=claim.note or None,
    )


def serving_view(compressed: str, alias: str, found: Serving | None, asked: Waiting | None) -> ServingView:
    """What is in service as the interface shows it."""
    return ServingView(
        compressed=compressed,
        alias=alias,
        in_service=InServiceView(
            version=found.version,
            before=found.before,
            since=found.since.timestamp() if found.since else None,
            by=found.by,
            why=found.why,
        )
        if found
        else None,
        waiting=WaitingView(version=asked.version, by=asked.by, since=asked.since.timestamp(), why=asked.why)
        if asked
        else None,
    )


def kept_view(version: str, kept: Kept, counts: bool) -> KeptView:
    """A comparison in the store as the interface shows it."""
    found = kept.comparison
    return KeptView(
        version=version,
        counts=counts,
        by=kept.by,
        at=kept.at.timestamp(),
        comparison=found,
        agreement=found.agreement,
        smaller=found.smaller,
        lighter=found.lighter,
    )


def version_view(release: Version | None) -> VersionView | None:
    """A version of the registry as the interface shows it."""
    if release is None:
        return None
    return VersionView(version=release.version, created=release.created.timestamp() if release.created else None)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that carry an error, for OpenAPI."""
    said = {
        400: "The request is malformed.",
        401: "There is no valid token.",
        403: "The token's role does not allow it.",
        404: "There is no such thing.",
        408: "The body did not arrive in time.",
        409: "The state of things does not allow it.",
        413: "The body is too large.",
        415: "The body is of another type than this takes.",
        422: "A value is missing, or not what it should be.",
        429: "Too much at a time; Retry-After says when to come again.",
        503: "The store, the registry or the engine does not answer.",
    }
    return {status: {"model": ErrorView, "description": said[status]} for status in statuses}
