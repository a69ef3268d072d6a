"""The aliases of compressed models in MLflow's registry, and what it says about their versions.

MLflow moves an alias without a condition: whoever asks last wins. `lmmpress.trigger.promotion` does what can be done
about that.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeVar

from lmmpress.tracking.client import explained, open_client
from lmmpress.tracking.registry import TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
_NONE = "RESOURCE_DOES_NOT_EXIST"
_CHECKPOINT, _ORIGINAL = "lmmpress.checkpoint", "lmmpress.original"


@dataclass(frozen=True)
class Registered:
    """A registered version: the digest of its checkpoint, of the original that it was compressed from, and where the
    checkpoint is. They are None if lmmpress has not registered it."""

    version: str
    ready: bool
    checkpoint: str | None
    original: str | None
    address: str | None = None


class Aliases(Protocol):
    """The aliases of a registry. Methods raise UserError if it does not answer, or refuses."""

    def version_at(self, model: str, alias: str) -> str | None:
        """The version that an alias names; None where there is no such model or alias."""
        ...

    def about(self, model: str, version: str) -> Registered | None:
        """What is registered as that version; None where there is none."""
        ...

    def made_of(self, model: str, checkpoint: str, original: str) -> str | None:
        """The newest version that is this checkpoint and was compressed from this original, by their digests; None
        where there is none."""
        ...

    def move(self, model: str, alias: str, version: str) -> None:
        """Let an alias name a version, whatever it names now."""
        ...

    def tag(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        ...

    def tags_of(self, model: str, version: str) -> Mapping[str, str]:
        """All tags of a version; none where there is no such version."""
        ...

    def untag(self, model: str, version: str, names: Iterable[str]) -> None:
        """Remove tags of a version."""
        ...


@dataclass
class MlflowAliases:
    """The aliases in MLflow's registry at a tracking URI."""

    tracking: str
    _client: "MlflowClient | None" = field(default=None, repr=False)

    def version_at(self, model: str, alias: str) -> str | None:
        """See `Aliases`."""
        found = self._ask(lambda client: client.get_registered_model(model))
        version = dict(found.aliases).get(alias) if found else None
        return None if version is None else str(version)

    def about(self, model: str, version: str) -> Registered | None:
        """See `Aliases`."""
        found = self._ask(lambda client: client.get_model_version(model, version)) if version.isdecimal() else None
        if found is None:
            return None
        tags = dict(found.tags)
        ready = found.status == "READY"
        return Registered(str(found.version), ready, tags.get(_CHECKPOINT), tags.get(_ORIGINAL), tags.get(TAG))

    def made_of(self, model: str, checkpoint: str, original: str) -> str | None:
        """See `Aliases`."""
        quote = '"' if "'" in model else "'"
        asked = f"name={quote}{model}{quote} and tags.`{_CHECKPOINT}`='{checkpoint}'"
        found = list(self._ask(lambda client: client.search_model_versions(asked)) or ())
        numbers = [int(one.version) for one in found if dict(one.tags).get(_ORIGINAL) == original]
        return str(max(numbers)) if numbers else None

    def move(self, model: str, alias: str, version: str) -> None:
        """See `Aliases`."""
        with explained(self.tracking):
            self._opened().set_registered_model_alias(model, alias, version)

    def tag(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        """See `Aliases`."""
        with explained(self.tracking):
            for name, text in tags.items():
                self._opened().set_model_version_tag(model, version, name, text)

    def tags_of(self, model: str, version: str) -> Mapping[str, str]:
        """See `Aliases`."""
        found = self._ask(lambda client: client.get_model_version(model, version))
        return dict(found.tags) if found else {}

    def untag(self, model: str, version: str, names: Iterable[str]) -> None:
        """See `Aliases`."""
        for name in names:
            self._ask(lambda client, name=name: client.delete_model_version_tag(model, version, name))  # type: ignore[misc]

    def _ask(self, ask: "Callable[[MlflowClient], T]") -> T | None:
        from mlflow.exceptions import MlflowException

        with explained(self.tracking):
            client = self._opened()
            try:
                return ask(client)
            except MlflowException as error:
                if error.error_code == _NONE:
                    return None
                raise

    def _opened(self) -> "MlflowClient":
        if self._client is None:
            self._client = open_client(self.tracking)
        return self._client


@lru_cache(maxsize=8)
def mlflow_aliases(tracking: str) -> MlflowAliases:
    """The aliases in MLflow's registry at a tracking URI, with one client for all who ask."""
    return MlflowAliases(tracking)
