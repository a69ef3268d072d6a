"""Values that a test knows to exist, for the type checker."""

from typing import TypeVar

import torch

from lmmpress.lmm.ragged_rows import RaggedRows
from lmmpress.lmm.tensor_rows import TensorRows

Thing = TypeVar("Thing")


def certain(thing: Thing | None) -> Thing:
    """Return the value; the test fails where it is None."""
    assert thing is not None
    return thing


def one_tensor(values: torch.Tensor | list[torch.Tensor] | None) -> torch.Tensor:
    """Return the values of images that are one tensor; the test fails where they are none, or a list."""
    assert isinstance(values, torch.Tensor)
    return values


def whole(rows: TensorRows | RaggedRows | None) -> torch.Tensor:
    """All rows of a file; the test fails where there is none, or where they have different lengths."""
    assert isinstance(rows, TensorRows)
    return rows.part(0, len(rows))
