"""Looking after a store: what it holds, whether it still holds it, what nobody names any more, runs that are to go, and
copies from store to store. What a stranger or a bad disk has put there is told, and the rest goes on."""

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
