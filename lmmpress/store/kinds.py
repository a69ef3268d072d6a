"""The kinds of objects in a store. Each kind has a folder of its own, which every name of that kind begins with.

blobs/ab/abc...           the bytes of a file, named by their sha256
checkpoints/DIGEST.json   a manifest: the files of a checkpoint
tensors/NAME.json         a manifest of one file of tensors
records/NAME.json         what a part of a step found
runs/KEY.json             the state of a run: its decisions, and which process works on it
copies/ID.json            the state of a copy into the store, while it is under way
claims/MODEL.json         the claims of a registered model: which questions the trigger answers, and has answered
hints/ID.json             a delivery of MLflow's webhook, for half an hour
acts/TIME-ID.json         who has done what to a model in the registry, and why
serving/MODEL.json        which versions of a compressed model were in service, and the moves of its alias
comparisons/A-B-ID.json   what a comparison of two checkpoints found, for the rule of promotion
online/MODEL-DAY.json     how many answers were right in production, of an original and its compressed model
notices/MODEL.json        which notices about a model were sent, and which are still to be sent
pins/ID.json              what somebody outside still needs of this store, and for what
damaged/KIND/NAME.json    bytes of damaged objects that `verify --discard` has set aside
"""

import re
from dataclasses import dataclass

HOUSEKEEPING = "housekeeping.json"
"""An object outside of all folders: its lease is held while objects are removed."""
RECONCILER = "reconciler.json"
"""An object outside of all folders: its lease is held while the trigger compares the registry with the claims."""


@dataclass(frozen=True)
class Kind:
    """A kind of object. `pattern` is what follows the folder in a name of this kind."""

    folder: str
    pattern: str = r"[^/\0]{1,240}\.json"

    @property
    def prefix(self) -> str:
        """How the names of this kind begin."""
        return f"{self.folder}/"

    def name(self, stem: str) -> str:
        """The name of the object of this kind with that stem: a digest, a run key, the name of a record."""
        return f"{self.folder}/{stem}.json"

    def has(self, name: str) -> bool:
        """Whether an object with that name is of this kind."""
        return name.startswith(self.prefix) and bool(re.fullmatch(self.pattern, name.removeprefix(self.prefix)))


BLOBS = Kind("blobs", r"(?P<begins>[0-9a-f]{2})/(?P=begins)[0-9a-f]{62}")
CHECKPOINTS = Kind("checkpoints")
TENSORS = Kind("tensors")
RECORDS = Kind("records")
RUNS = Kind("runs")
COPIES = Kind("copies")
CLAIMS = Kind("claims")
HINTS = Kind("hints")
ACTS = Kind("acts")
SERVING = Kind("serving")
COMPARISONS = Kind("comparisons")
ONLINE = Kind("online")
NOTICES = Kind("notices")
PINS = Kind("pins")
DAMAGED = Kind("damaged", r".*")


def stem(name: str) -> str:
    """The last part of an object's name: a sha256, a digest, a run key, the name of a record."""
    return name.rsplit("/", 1)[-1].removesuffix(".json")
