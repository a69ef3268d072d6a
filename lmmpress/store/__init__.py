"""The store keeps checkpoints, results of parts and the states of runs. It is a directory or an S3 bucket."""

from lmmpress.store.address import open_checkpoint, open_store
from lmmpress.store.store import Store

__all__ = ["Store", "open_checkpoint", "open_store"]
