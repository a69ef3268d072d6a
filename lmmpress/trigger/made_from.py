"""From which version of the original a compressed version was made.

A compressed version in MLflow says of which checkpoint and in which run it was made, and a claim says for which version
of the original that was.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from lmmpress.errors import UserError
from lmmpress.tracking.client import explained, open_client
from lmmpress.trigger.claims import Claim, State

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ORIGINAL, _RUN_KEY = "lmmpress.original", "lmmpress.run_key"
"""The tags of a version that lmmpress has registered."""
_NONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that there is no such model, version or alias."""


@dataclass(frozen=True)
class Made:
    """A version of a compressed model. `source` is the version of the original that it was made from; None where
    nobody knows it, such as of a version that somebody has registered by hand. `original` is the digest of the original
    and `run_key` the run; empty where the version does not say it."""

    version: str
    created: datetime | None
    source: str | None = None
    original: str = ""
    run_key: str = ""


class MadeFrom(Protocol):
    """Asks which version an alias of a compressed model names."""

    def __call__(self, compressed: str, alias: str) -> Made | None:
        """The version that the alias names; None if there is none. UserError if the registry does not answer."""
        ...


@dataclass
class MlflowMadeFrom:
    """`MadeFrom` by the registry of MLflow at a tracking URI."""

    tracking: str
    _client: "MlflowClient | None" = field(default=None, repr=False)

    def __call__(self, compressed: str, alias: str) -> Made | None:
        """See `MadeFrom`."""
        if self._client is None:
            self._client = open_client(self.tracking)
        try:
            with explained(self.tracking):
                version = self._client.get_model_version_by_alias(compressed, alias)
        except UserError as error:
            if getattr(error.__cause__, "error_code", "") in _NONE:
                return None
            raise
        created, tags = version.creation_timestamp, dict(version.tags)
        return Made(
            str(version.version),
            datetime.fromtimestamp(created / 1000, UTC) if created else None,
            original=tags.get(_ORIGINAL, ""),
            run_key=tags.get(_RUN_KEY, ""),
        )


def source_of(made: Made, claims: Iterable[Claim], run_key_of: Callable[[Claim], str | None]) -> str | None:
    """The version of the original that a compressed version was made from, by the claims of that model; None if none
    says it. Of several versions that are one checkpoint it is the newest."""
    done = [claim for claim in claims if claim.state is State.succeeded]
    found = [claim for claim in done if made.original and claim.question.digest == made.original]
    # of a checkpoint in a folder of a bucket the trigger knows no digest of the content
    found = found or [claim for claim in done if made.run_key and run_key_of(claim) == made.run_key]
    return max((claim.question.version for claim in found), key=int, default=None)
