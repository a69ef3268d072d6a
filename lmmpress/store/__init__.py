"""The store: where checkpoints and what is known of them lie between steps; a directory, or a bucket."""

from lmmpress.store.address import open_checkpoint, open_store
from lmmpress.store.store import Store

__all__ = ["Store", "open_checkpoint", "open_store"]
