"""Decisions as a run records them in a store's history."""

from typing import Any


def decision(parent: str, checkpoint: str | None, **changes: Any) -> dict[str, Any]:
    """A step that was accepted, from one checkpoint to another."""
    return {
        "stage": "ffn",
        "index": 0,
        "tower": "language",
        "removed": 16,
        "decision": "accepted",
        "reason": "drop 0.0100 is below alpha 0.1500",
        "parent": parent,
        "checkpoint": checkpoint,
        "parameters": 1000,
        "parameters_by_tower": {"language": 1000},
        "accuracy_pruned": 0.5,
        "accuracy": 0.98,
        "accuracy_by_task": {"color": 0.98},
        "reference": 0.99,
        "drop": 0.01,
        "drop_interval": None,
        "score_reliability": None,
        "loss": [0.5],
        "seconds": {"prune": 1.0},
    } | changes
