"""A copy of a checkpoint that a test may change."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def copy(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint of the test's own, which it may change."""
    return shutil.copytree(make_checkpoint("llama"), tmp_path / "copy")
