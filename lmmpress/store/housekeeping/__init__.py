"""Looking after a store: listing it, checking it, removing unused objects or a run, copying it.

Damaged objects, and objects that a stranger has put there, are reported. They do not stop the rest of the work.
"""

from lmmpress.store.housekeeping.contents import Fault
from lmmpress.store.housekeeping.copies import copy_checkpoint, copy_store, refuse_no_checkpoint
from lmmpress.store.housekeeping.garbage import collect_garbage
from lmmpress.store.housekeeping.listing import list_store
from lmmpress.store.housekeeping.removal import remove_run
from lmmpress.store.housekeeping.verify import Discarded, discard_faults, verify_store

__all__ = [
    "Discarded",
    "Fault",
    "collect_garbage",
    "copy_checkpoint",
    "copy_store",
    "discard_faults",
    "list_store",
    "refuse_no_checkpoint",
    "remove_run",
    "verify_store",
]
