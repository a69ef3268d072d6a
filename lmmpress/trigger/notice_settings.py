"""Settings of notices: where they go, and when a version counts as stale."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lmmpress.trigger.server_settings import Secret
from lmmpress.trigger.texts import Language


class NoticeKind(StrEnum):
    """What a notice is about: a run has started, finished or failed; a version was not compressed for long; the
    accuracy in production drifts."""

    started = "started"
    finished = "finished"
    failed = "failed"
    stale = "stale"
    drift = "drift"


class NoticeAddress(Secret):
    """An address that notices go to, as apprise writes it (`mailtos://...`, `slack://...`, `dingtalk://...`). It holds
    passwords or tokens, so it is read from a file or from a variable of the environment, each time anew."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    kinds: Annotated[tuple[NoticeKind, ...], Field(min_length=1)] = tuple(NoticeKind)
    """The kinds that go there; by default all."""
    language: Language = "en"
    """The language of its notices: `en` or `zh`."""


class NoticeSettings(BaseModel):
    """The section `notices` of the trigger's settings. Without an address there are no notices."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    addresses: tuple[NoticeAddress, ...] = ()
    stale_days: Annotated[float, Field(gt=0, le=3650)] = 7.0
    """After how many days a new version that was not compressed is stale."""
    page: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    """The address of the trigger's page, for the link of notices that are about no run."""
    seconds: Annotated[float, Field(ge=0, le=600)] = 20.0
    """How long a round of the reconciler waits for notices that are being sent."""

    @field_validator("addresses")
    @classmethod
    def _names_differ(cls, addresses: tuple[NoticeAddress, ...]) -> tuple[NoticeAddress, ...]:
        names = [address.name for address in addresses]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"has two addresses with the name {', '.join(twice)}")
        return addresses
