"""The names of the parts, and the version of each."""

from typing import Literal, get_args

Part = Literal["sight", "importance", "prune", "distill", "evaluate", "speed", "load"]
PARTS: frozenset[Part] = frozenset(get_args(Part))
VERSIONS: dict[Part, int] = {
    "sight": 1,
    "importance": 1,
    "prune": 1,
    "distill": 1,
    "evaluate": 1,
    "speed": 3,  # version 2 generates as many tokens as the right answers have, version 3 within a time
    "load": 1,
}
"""Raise a part's version when its result changes."""
