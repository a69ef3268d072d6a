"""Keeps the Hugging Face libraries of this process offline, and tells whether that was the user's wish."""

import os

OFFLINE = "HF_HUB_OFFLINE"
_ours: list[str] = []


def stay_offline() -> None:
    """Keep this process offline, unless the user has said what HF_HUB_OFFLINE is."""
    if OFFLINE not in os.environ:
        os.environ[OFFLINE] = "1"
        _ours.append(OFFLINE)


def as_the_user_said(variables: dict[str, str]) -> dict[str, str]:
    """Variables for a process that fetches what the user asked for: offline only if the user has said so."""
    return {name: value for name, value in variables.items() if name not in _ours}
