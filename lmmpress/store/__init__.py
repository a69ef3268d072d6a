"""The store: where checkpoints and what is known of them lie between steps, behind one small interface."""

from lmmpress.store.directory import open_store
from lmmpress.store.interface import Store

__all__ = ["Store", "open_store"]
