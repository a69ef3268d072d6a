"""What the rest of lmmpress knows of a store."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch


class Store(Protocol):
    """Names are short strings made from the inputs of what they name, so nothing is ever overwritten by another thing.

    Whatever was written is there as a whole or not at all, at whatever moment the writer is killed.
    """

    @property
    def root_address(self) -> str:
        """What `open_store` opens this store by, on this machine."""
        ...

    def read_record(self, name: str) -> dict[str, Any] | None:
        """The small JSON record of that name, None where there is none."""
        ...

    def write_record(self, name: str, record: dict[str, Any]) -> None: ...

    def read_tensors(self, name: str) -> dict[str, torch.Tensor] | None:
        """The tensors of that name, None where there are none."""
        ...

    def write_tensors(self, name: str, tensors: dict[str, torch.Tensor]) -> None: ...

    def scratch(self) -> AbstractContextManager[Path]:
        """A new empty folder on the store's own disk, removed at the end."""
        ...

    def add_checkpoint(self, directory: Path) -> str:
        """Take in a checkpoint directory from `scratch`; its digest is its name."""
        ...

    def checkpoint(self, digest: str) -> Path:
        """A local directory with the files of a checkpoint; UserError where the store has none of that digest."""
        ...

    def address(self, digest: str) -> str:
        """Where others find a checkpoint: what lineage records."""
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Held by one process at a time; UserError at once where another holds it."""
        ...
