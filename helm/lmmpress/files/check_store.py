"""`helm test`: does the bucket keep what the store needs, a write on condition above all?

Runs in the image of lmmpress, with the environment of the pipeline's pods, through the code that they run.
"""

import os
import sys
import uuid

from lmmpress.errors import UserError
from lmmpress.store.bucket import BucketObjects
from lmmpress.store.objects import ChangedError


def refused(objects: BucketObjects, name: str, tag: str | None) -> bool:
    try:
        objects.write(name, b"{}", tag)
    except ChangedError:
        return True
    return False


def check(address: str) -> str | None:
    """What is wrong with it, if anything."""
    objects = BucketObjects(address, patience=float(os.environ.get("CHECK_PATIENCE", "30")))
    name = f"check-{uuid.uuid4().hex}.json"
    objects.write(name, b'{"check": 1}', None)
    try:
        found = objects.read(name)
        if found is None or found.data != b'{"check": 1}':
            return "what was written is not what is read"
        if not refused(objects, name, None):
            return "the server ignores If-None-Match: two processes would decide the same step"
        objects.write(name, b'{"check": 2}', found.tag)
        if not refused(objects, name, found.tag):
            return "the server ignores If-Match: two processes would decide the same step"
        if name not in {entry.name for entry in objects.entries("")}:
            return "what was written is not listed"
    finally:
        objects.delete(name)
    return "what was deleted is still there" if objects.read(name) else None


try:
    wrong = check(os.environ["STORE"])
except UserError as error:
    wrong = str(error)
if wrong:
    sys.exit(wrong)
print(f"{os.environ['STORE']}: writes, reads, lists, deletes, and keeps conditions")
